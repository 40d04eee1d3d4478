"""Replaces the convolutions and recurrences along a text, which transformers' models call as functions.

May import `models/spec.py`, `models/errors.py`, `models/patching.py` and `models/traceable/`. Read
`replacing.py` first.
"""
