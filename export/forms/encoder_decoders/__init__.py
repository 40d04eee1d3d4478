"""The graphs of an encoder-decoder, and those for GPUs.

May import `export/gpu`, `export/forms/decoders` and what is below them. Read `graph.py` first.
"""
