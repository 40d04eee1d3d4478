"""Turns a checkpoint into a bundle. Needs the export extra.

May import `triform.models` and `triform.runtime`. Read `pipeline.py` first; `forms/` holds one way a form.
"""
