"""What a user may ask of a generation, and how it is checked and completed.

May import `generation/steps.py`. Read `generation.py` first.
"""
