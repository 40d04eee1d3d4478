"""Makes the tokenizer.json of a bundle from any tokenizer of a checkpoint, and compares the two.

May import `triform.runtime` only. Read `conversion.py` first.
"""
