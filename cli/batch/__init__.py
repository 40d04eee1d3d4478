"""Runs a model over files of any size, block by block, on one machine or a cluster.

May import `triform.runtime`, `triform.cli.inputs`, `triform.cli.outputs`, and in functions pyarrow and ray. Read `run`
first.
"""
