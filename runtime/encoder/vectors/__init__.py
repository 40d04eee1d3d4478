"""Vectors of texts, pictures and tokens, how they are stored, and search over them.

May import `encoder/opened.py` and `encoder/windows.py`. Read `embedding.py` first.
"""
