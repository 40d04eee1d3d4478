"""Where the program begins: Ctrl-C is handled before anything that takes time is imported."""

from __future__ import annotations

from triform.cli.signals import end_at_once


def start() -> None:
    """Run the command line and exit."""
    end_at_once()
    from triform.cli.main import main

    main()
