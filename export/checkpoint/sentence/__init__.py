"""Reads embedding models: folders of sentence-transformers and model2vec, files of word vectors.

May import `export/checkpoint/files` and `triform.models`. Read `sentence_transformers.py` first.
"""
