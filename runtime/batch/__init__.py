"""Runs models over tables of texts or recordings: a column for each result, and a reason for each row that has none.

May import all of `triform.runtime`, and pyarrow in functions. Read `predictor` first.
"""
