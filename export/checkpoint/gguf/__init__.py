"""Reads GGUF files: configs, weights and tokenizers, without the losses of transformers' own reader.

May import `export/graph`, `export/tokenization` and `triform.models`. Read `loading.py` first.
"""
