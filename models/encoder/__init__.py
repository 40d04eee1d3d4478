"""An encoder with its head as a graph.

May import `models/attention` and `models/traceable`. Read `graph.py` first.
"""
