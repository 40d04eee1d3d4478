"""The PyTorch side: transformers' models as graphs that can be traced.

May import torch, transformers and optimum, and nothing else of triform. Read `catalog.py` first.
"""
