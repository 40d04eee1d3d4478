"""Runs encoders: a module for each task, and `Encoder`, which has all tasks as methods.

May import `runtime/graphs`, `runtime/media` and what is below them, never `runtime/generation`. Read `opened.py` first.
"""
