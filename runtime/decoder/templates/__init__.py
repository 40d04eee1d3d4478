"""Jinja templates with Jinja2's meaning, by minijinja, or by Jinja2 itself where a bundle asks for it.

May import nothing of triform but `runtime/bundle`, `runtime/errors` and `runtime/extras`. Read `engines.py` first.
"""
