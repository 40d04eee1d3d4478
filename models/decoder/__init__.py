"""Prepares a causal language model for tracing as one graph.

May import `models/attention` and `models/traceable`. Read `graph.py` first.
"""
