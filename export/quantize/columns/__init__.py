"""Products of 8-bit activations and 8-bit columns of weights.

May import what is below in `export/quantize`. Read `products` first.
"""
