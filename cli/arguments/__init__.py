"""Arguments and options that several commands share, declared once.

May import `cli/inputs`, `cli/outputs` and `triform.runtime`. Read `common.py` first.
"""
