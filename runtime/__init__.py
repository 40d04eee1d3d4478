"""Runs bundles on a device, with numpy, onnxruntime, tokenizers and minijinja.

May import nothing else of triform. Read `opening.py` first, then the folder of a form: `decoder/`, `encoder/`,
`encoder_decoder/` or `speech/`. What they are built of lies below: `generation/`, `media/`, `graphs/`, `text/` and
`bundle/`. What users hold is handed on by `triform` itself.
"""
