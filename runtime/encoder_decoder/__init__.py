"""Runs encoder-decoders, which read a source (text, an image, audio) and generate text.

May import `runtime/generation`, `runtime/graphs`, `runtime/media` and what is below them. Read `model.py` first.
"""
