"""Opens what a user has: a checkpoint folder, a hub id, a GGUF file, a table of static vectors.

May import `export/tokenization` and `triform.models`. Read `resolve.py` first.
"""
