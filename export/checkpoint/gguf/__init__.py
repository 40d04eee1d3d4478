"""GGUF files: configs, weights and tokenizers read by us, where transformers loses something.

May import `export/graph`, `export/tokenization` and `triform.models`. Read `loading.py` first.
"""
