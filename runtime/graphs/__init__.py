"""Runs ONNX graphs: sessions, what a decoder keeps, one step of each form. In `runtime/`, only it imports onnxruntime.

May import `runtime/bundle` and what is below it. Read `session.py`, then `decoding/step.py` first.
"""
