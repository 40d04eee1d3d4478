"""Commands for encoders, one per task: vectors, labels, spans and rankings.

May import the rest of `cli/` and `triform.runtime`. Read `embed.py` first.
"""
