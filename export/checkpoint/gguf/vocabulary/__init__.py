"""Vocabularies of GGUF files as tokenizers: what cuts a text, what stands around it, what ends an answer.

May import `export/checkpoint/gguf/container.py`. Read `tokenizer.py` first.
"""
