"""What an import of an encoder-decoder is made of: its files, the bundle's graphs, and what they are compared with.

May import what `export/onnx_import` may, and `decoders`. Read `graph.py` first.
"""
