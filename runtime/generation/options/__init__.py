"""The options of a generation, their checks, and the model's defaults.

May import `generation/steps.py`. Read `generation.py` first.
"""
