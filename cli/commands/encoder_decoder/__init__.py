"""Commands for encoder-decoders: translate, summarize, rewrite, read-image and transcribe.

May import the rest of `cli/` and `triform.runtime`. Read `text_to_text.py` first.
"""
