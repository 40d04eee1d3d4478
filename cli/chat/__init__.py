"""What `triform chat` does between answers: reads lines, runs slash commands, changes parameters.

May import `cli/arguments`, `cli/inputs`, `cli/outputs` and `triform.runtime`. Read `session.py` first.
"""
