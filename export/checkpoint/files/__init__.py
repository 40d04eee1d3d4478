"""The files of a checkpoint: JSON, weights, image processors, and what is fetched from the hub.

May import nothing else of `export/`. Read `weights.py` first.
"""
