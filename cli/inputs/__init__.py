"""Reads what a user hands in: records, whole texts, files of tools.

May import `triform.runtime`. Read `records.py` first.
"""
