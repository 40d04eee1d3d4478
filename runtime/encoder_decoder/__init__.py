"""The encoder-decoder form: a source in, text out.

May import `runtime/generation`, `runtime/graphs`, `runtime/media` and what is below them. Read `model.py` first.
"""
