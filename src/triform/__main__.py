"""``python -m triform``."""

from triform.cli.entry import start

if __name__ == "__main__":
    start()
