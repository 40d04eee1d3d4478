"""Defaults of options from triform.toml and from environment variables. Read `settings` first.

May import `triform.runtime` and `triform.cli.outputs`.
"""
