"""Turns float32 graphs into graphs for GPUs: 16-bit floats, and for decoders lengths from outside and a choice inside.

May import `export/quantize` and what is below it. Read `half.py` first.
"""
