"""Commands that make, show or check a bundle of any form.

May import `triform.export` inside a command, and the rest of `cli/`. Read `export.py` first.
"""
