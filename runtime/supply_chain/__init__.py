"""What a bundle and an installation are made of, for those who have to account for it.

May import `runtime/bundle` and what stands before it. Read `packages.py` first.
"""
