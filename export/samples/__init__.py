"""Texts, voices, pictures and batches that an export is calibrated with and checked on.

May import `export/checkpoint` and `export/describe`. Read `texts.py` first.
"""
