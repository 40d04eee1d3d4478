"""Operators on the integers that a checkpoint has already: those of a GGUF file, and those that another tool packed.

May import what `export/quantize` may. Read `blocks.py` first; `packed.py` is for checkpoints that are no GGUF files.
"""
