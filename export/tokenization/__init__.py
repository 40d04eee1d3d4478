"""Makes the tokenizer.json of a bundle from whatever tokenizer a checkpoint has, and compares the two.

May import `triform.runtime` only. Read `conversion.py` first.
"""
