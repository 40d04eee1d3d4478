"""``triform sign``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from triform.cli.arguments.common import BundleFolder

HELP = """Sign a bundle with an Ed25519 key, for those who get it to check.

\b
  openssl genpkey -algorithm ed25519 -out private.pem && chmod 600 private.pem
  openssl pkey -in private.pem -pubout -out public.pem
  triform sign BUNDLE --key private.pem
  triform verify BUNDLE --key public.pem

The signature is the file manifest.json.sig in the bundle. It is over manifest.json, which holds the hashes of all other
files.
"""


def run(
    bundle: BundleFolder,
    key: Annotated[Path, typer.Option(help="The private key, in PEM, that only you can read.")],
) -> int:
    """Parse, call, render."""
    from triform.runtime.bundle.folder import open_bundle
    from triform.runtime.supply_chain.signing import sign_bundle

    print(f"signed: {sign_bundle(open_bundle(bundle), key)}")
    return 0
