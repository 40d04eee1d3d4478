"""Reads sound and pictures, and computes from them what models read.

May import `runtime/bundle` and what is below it. Read `audio.py` first.
"""
