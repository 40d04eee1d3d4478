"""When each word was spoken, from the model's cross-attention.

May import what `runtime/speech` may. Read `timestamps.py` first.
"""
