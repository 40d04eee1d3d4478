"""What the machine offers: cores, instructions, memory.

May import the standard library and numpy only. Read `processor` first.
"""
