"""Prepares an encoder-decoder for tracing as two graphs.

May import `models/attention` and `models/traceable`. Read `graph.py` first.
"""
