"""The encoder form: one module a task, and the class that has them all.

May import `runtime/graphs`, `runtime/media` and what is below them, never `runtime/generation`. Read `opened.py` first.
"""
