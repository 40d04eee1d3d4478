"""Checks the range of every value in a manifest, one file for each of its parts.

May import the manifest's records, `errors` and `printable`. Read `contract.py` first, then `every.py`.
"""
