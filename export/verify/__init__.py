"""Compares graphs with PyTorch while a bundle is made, one module per form.

May import `export/runners.py`, `export/samples` and `export/graph`. Read `decoder.py` first.
"""
