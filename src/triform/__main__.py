"""``python -m triform``."""

from triform.cli.main import main

if __name__ == "__main__":
    main()
