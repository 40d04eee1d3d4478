"""Drives a decoder's graph: a sequence, a batch of them, or branches of one.

May import what is below in `runtime/graphs`. Read `step` first.
"""
