"""Runs graphs for GPUs: the memory of a device, what moves in it, and one step of a decoder.

May import `runtime/bundle` and what is below it, and of `runtime/graphs` `buffers`, `protocols` and `session`.
Read `memory.py` first.
"""
