"""Runs ONNX graphs: sessions, the key/value cache, one step of each form. In `runtime/`, only it imports onnxruntime.

May import `runtime/bundle` and what is below it. Read `decoder_step.py` first.
"""
