"""The graphs of a decoder: traced, with the blocks of a GGUF file, and for GPUs.

May import `export/gpu` and what is below it. Read `graph.py` first.
"""
