"""Turns ONNX graphs that other tools exported into bundles.

May import all of `export/` but `recheck/` and `pipeline.py`. Read `encoder.py` first.
"""
