"""A traced program of PyTorch on its way to ONNX: its operators made simpler, and translations of our own.

May import nothing else in Triform. Read `as_traced.py` first.
"""
