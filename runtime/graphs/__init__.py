"""Runs ONNX graphs: sessions, the key/value cache, one step of each form. Only this folder imports onnxruntime.

May import `runtime/bundle` and what is below it. Read `decoder_step.py` first.
"""
