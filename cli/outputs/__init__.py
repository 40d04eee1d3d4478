"""Writes what a user sees: tables, notes and progress bars; handles a closed pipe.

May import `triform.runtime`. Read `notes.py` first.
"""
