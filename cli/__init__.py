"""The command line: one typer app, one module per command, every failure one line.

May import `triform.runtime`; `commands/bundle` also `triform.export`, inside the command. Read `main.py` first.
"""
