"""Jinja templates with Jinja2's meaning, by minijinja, or by Jinja2 itself where a bundle asks for it.

May import `runtime/bundle`, `runtime/errors.py` and `runtime/extras.py`. Read `engines.py` first.
"""
