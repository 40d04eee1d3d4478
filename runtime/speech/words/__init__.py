"""Finds the times of words from the model's cross-attention.

May import what `runtime/speech` may. Read `timestamps.py` first.
"""
