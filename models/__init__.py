"""The PyTorch side: transformers models as traceable graphs."""
