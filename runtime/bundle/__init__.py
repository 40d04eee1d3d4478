"""Reads bundles: the folder, the manifest and its records.

May import `errors`, `json_dataclasses` and `files`. Read `manifest.py` first.
"""
