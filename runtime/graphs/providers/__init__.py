"""Chooses ONNX Runtime's execution providers, starts them, and says what stops them and what they leave to the CPU.

May import `runtime/extras.py` and what is below it. Read `choice.py` first.
"""
