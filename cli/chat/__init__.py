"""What `triform chat` does between two answers: reads lines, obeys slash commands, keeps parameters.

May import `cli/arguments`, `cli/inputs`, `cli/outputs` and `triform.runtime`. Read `session.py` first.
"""
