"""Compares a finished bundle with its source again, for `triform verify --against`.

May import every other folder of `export/`. Read `against.py` first.
"""
