"""Speculative decoding: tokens proposed by prompt lookup, a draft model or the form of the answer.

May import `generation/loop.py` and what is below it. Read `loop.py` first.
"""
