"""Rewrites of what torch.export cannot trace, recognized by what it does.

May import `models/spec.py` and `models/errors.py`. Read `substitutions.py` first.
"""
