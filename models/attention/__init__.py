"""What takes the place of a model's attention: ONNX Runtime's operators, and rotary embeddings inside them.

May import `models/spec.py` and `models/errors.py`. Read `causal.py` first.
"""
