"""Several sequences at once: beams, samples, and batches that prompts join and leave.

May import `generation/loop.py` and what is below it. Read `batch.py` first.
"""
