"""Exports each form from a checkpoint to a bundle, stage by stage.

May import every other folder of `export/` but `recheck`. Read `decoder.py` first.
"""
