"""A traced program of PyTorch on its way to ONNX: simpler operators, translations of our own, and repeated layers.

May import `models`, for which layers are alike, and nothing else in Triform. Read `as_traced.py` first.
"""
