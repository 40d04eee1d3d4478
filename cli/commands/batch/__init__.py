"""The commands of `triform batch`, one file each.

May import `triform.cli.batch`, `triform.cli.arguments` and `triform.runtime`. Read `embed` first.
"""
