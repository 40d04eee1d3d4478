"""Prepares models of transformers for tracing.

May import torch, transformers and optimum, and nothing else of triform. Read `catalog.py` first.
"""
