"""Texts, voices, images and batches for calibration and comparison.

May import `export/checkpoint` and `export/describe`. Read `texts.py` first.
"""
