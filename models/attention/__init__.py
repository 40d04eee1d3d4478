"""Replaces a model's attention and rotary embeddings by operators of ONNX Runtime.

May import `models/spec.py`, `models/errors.py` and `models/patching.py`. Read `causal.py` first.
"""
