"""Reads a user's inputs: records, whole texts, files of tools.

May import `triform.runtime`. Read `records.py` first.
"""
