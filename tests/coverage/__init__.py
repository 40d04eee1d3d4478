"""The sweep over the architectures of transformers: which of them export, and compute what transformers computes.

For every type a tiny checkpoint of random weights is made, exported, run, and compared. `sweep` does it and keeps the
results; `page` writes docs/models.md from them. A test of a sample is tests/test_coverage.py.
"""
