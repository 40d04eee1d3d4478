"""A causal language model as a graph with a key/value cache.

May import `models/attention` and `models/traceable`. Read `graph.py` first.
"""
