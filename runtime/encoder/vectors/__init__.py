"""Computes vectors of texts, images and tokens, stores them, and searches them.

May import `encoder/opened.py` and `encoder/windows.py`. Read `embedding.py` first.
"""
