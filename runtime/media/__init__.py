"""Reads audio and images, and computes the inputs of models from them.

May import `runtime/bundle` and what is below it. Read `audio.py` first.
"""
