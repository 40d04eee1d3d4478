"""Builds transformers' config of a model from the keys of its file.

Read `config.py` first. `variants.py` finds the architecture; the other modules have the parts that architectures share.
"""
