"""Quantizes the matrices of a float graph to 8 or 4 bits.

May import `export/graph`, `export/samples`, `export/runners.py` and `export/verify`. Read `blockwise.py` first.
"""
