"""Several sequences in one batch: beam search, sampling, and continuous batching.

May import `generation/loop.py` and what is below it. Read `batch.py` first.
"""
