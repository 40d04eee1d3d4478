"""Prepares an encoder and its head for tracing.

May import `models/attention` and `models/traceable`. Read `graph.py` first.
"""
