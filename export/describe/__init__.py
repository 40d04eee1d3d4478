"""Reads a checkpoint's configuration into the manifest's words: special tokens, defaults, processors.

May import `export/checkpoint`, `export/tokenization` and `triform.runtime`. Read `manifest.py` first.
"""
