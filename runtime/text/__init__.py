"""Everything between text and token ids: files, tokenizers, detokenization; knows no model.

May import `runtime/bundle` and what is below it. Read `tokenizer.py` first.
"""
