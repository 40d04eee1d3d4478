"""One way from a checkpoint to a bundle for each form; each reads like its list of stages.

May import every other folder of `export/` but `recheck`. Read `decoder.py` first.
"""
