"""Measures the quality of a loaded model on a file with known answers, with confidence intervals.

May import everything else in runtime/ but `opening`. Read `measurement.py` first.
"""
