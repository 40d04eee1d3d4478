"""Renders Jinja templates as Jinja2 does: with minijinja, or with Jinja2 itself if a bundle needs it.

May import `runtime/bundle`, `runtime/errors.py` and `runtime/extras.py`. Read `engines.py` first.
"""
