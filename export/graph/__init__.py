"""Makes an ONNX graph of a traced model, and makes it smaller: tracing, fusion, cache inputs and outputs.

May import nothing else in `export/` but `options.py`, `report.py` and `write.py`. Read `tracing.py` first.
"""
