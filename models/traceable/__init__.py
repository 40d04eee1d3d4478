"""Replaces parts of models that torch.export cannot trace.

May import `models/spec.py`, `models/errors.py` and `models/patching.py`. Read `substitutions.py` first.
"""
