"""Several tokens in one run: proposed by a text's own past, a draft model or the form of the answer.

May import `generation/loop.py` and what is below it. Read `loop.py` first.
"""
