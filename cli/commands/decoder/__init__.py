"""Commands for decoders: generate, chat and score.

May import the rest of `cli/` and `triform.runtime`. Read `generate.py` first.
"""
