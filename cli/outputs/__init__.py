"""Writes what a user sees: tables, notes, progress bars, and what happens when a pipe closes.

May import `triform.runtime`. Read `notes.py` first.
"""
