"""The architectures of GGUF files that are read: transformers' model type, and the names of keys and tensors.

May import nothing of Triform outside this folder. Read `architecture.py` first, then `table.py`.
"""
