"""Reads bundles: the folder, the manifest and its records.

May import `errors`, `checked_json` and `files`. Read `manifest.py` first.
"""
