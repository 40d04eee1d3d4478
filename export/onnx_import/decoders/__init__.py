"""What an import of a decoder is made of: its description, its graph's inputs, and what it is compared with.

May import what `export/onnx_import` may. Read `graph.py` first.
"""
