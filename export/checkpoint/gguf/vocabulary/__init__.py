"""Builds tokenizers from the vocabularies of GGUF files: pre-tokenizers, special tokens, chat templates.

May import `export/checkpoint/gguf/container.py`. Read `tokenizer.py` first.
"""
