"""Describes a checkpoint's configuration for the manifest: special tokens, defaults, processors.

May import `export/checkpoint`, `export/tokenization` and `triform.runtime`. Read `manifest.py` first.
"""
