"""Commands that make a bundle, show it or check it, whatever its form.

May import `triform.export` inside a command, and the rest of `cli/`. Read `export.py` first.
"""
