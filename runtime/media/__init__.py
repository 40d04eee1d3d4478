"""Sound and pictures as arrays.

May import `runtime/bundle` and what is below it. Read `audio.py` first.
"""
