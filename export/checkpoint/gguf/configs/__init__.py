"""Builds transformers' config of a model from the keys of its file.

May import `architectures` and the modules of the folder above that read a file's keys and tensors. Read `config.py`
first; `variants.py` finds the architecture, and the other modules have the parts that architectures share.
"""
