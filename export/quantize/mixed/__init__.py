"""Gives each matrix of a decoder the bits that suit it, within a target for the whole.

May import what `export/quantize` may. Read `lowering.py` first: `moments.py` measures with PyTorch, `choices.py`
estimates what each way of storing a matrix costs and damages, and `allocation.py` chooses.
"""
