"""Commands about the machine that bundles run on.

May import what `cli/commands` may. Read `doctor` first.
"""
