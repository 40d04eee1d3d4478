"""``triform verify``."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Optional

import typer

from triform.cli.arguments.common import BundleFolder

HELP = """Check the hash of every file in a bundle, with --key its signature, and with --against its outputs.

\b
  triform verify BUNDLE
  triform verify BUNDLE --against ./my-model     compare outputs with PyTorch again
  triform verify BUNDLE --key public.pem         check who signed it, see triform sign --help
"""


def run(
    bundle: BundleFolder,
    against: Annotated[Optional[str], typer.Option(help="The checkpoint that it was exported from.")] = None,
    key: Annotated[Optional[Path], typer.Option(help="The signer's public key, in PEM.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> int:
    """Parse, call, render."""
    from triform.cli.outputs.tables import encoder_parity_rows, parity_rows, rows
    from triform.runtime.bundle.export_record import Parity
    from triform.runtime.bundle.folder import open_bundle
    from triform.runtime.bundle.verification import verify_files

    opened = open_bundle(bundle)
    if key is not None:
        from triform.runtime.supply_chain.signing import check_signature

        check_signature(opened, key)
    files = verify_files(opened)
    parity = None
    if against is not None:
        from triform.cli.commands.bundle.export_extra import check_installed, compiled_elsewhere

        check_installed()
        with compiled_elsewhere():
            from triform.export.recheck.against import verify_against

            parity = verify_against(opened, against)
    if as_json:
        result = {
            "files": files,
            "signed": key is not None,
            "parity": None if parity is None else dataclasses.asdict(parity),
        }
        print(json.dumps(result))
        return 0
    print(f"{bundle}: {len(files)} files are as they were exported")
    if key is not None:
        print(f"{bundle}: signed by the holder of {key}")
    if parity is not None:
        print(rows(parity_rows(parity) if isinstance(parity, Parity) else encoder_parity_rows(parity)))
    return 0
