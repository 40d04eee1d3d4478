"""Gives each matrix of a model the bits that suit it, so that the whole meets a goal.

May import what `export/quantize` may. Read `lowering.py` first: `moments.py` measures with PyTorch, `choices.py`
estimates what each way of storing a matrix costs and damages, `allocation.py` orders these ways to a frontier, and
`goals.py` chooses a point of it.
"""
