"""Weights that other tools quantized and packed into integers, as floats.

May import nothing else of `export/`. Read `formats.py` first; each other module unpacks the files of one tool.
"""
