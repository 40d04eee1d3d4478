"""Traces a model to an ONNX graph and fuses its operators.

May import nothing else in `export/` but `options.py`, `report.py` and `write.py`. Read `tracing.py` first.
"""
