"""Runs decoders whose graphs take the keys and values so far and give them with the new ones behind them.

May import `runtime/bundle` and what is below it, and of `runtime/graphs` `buffers`, `encoder_output` and `protocols`.
Read `step.py` first: it runs a graph on copies of the cache that `buffers.py` keeps.
"""
