"""From logits to tokens to answers; knows no ONNX Runtime and no files.

May import `runtime/text`, `runtime/bundle` and what is below them, never `runtime/graphs`. Read `steps.py` first, then
`loop.py`.
"""
