"""Logits processors: penalties, bans, truncation, forms.

May import `generation/steps.py` and `generation/options`. Read `contract.py` first.
"""
