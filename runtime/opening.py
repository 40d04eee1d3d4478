"""`load(path)`: the one door into the runtime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from triform.runtime.bundle import open_bundle
from triform.runtime.decoder import Decoder
from triform.runtime.errors import UnsupportedError


def load(
    path: str | Path,
    *,
    provider: str = "auto",
    provider_options: Mapping[str, str] | None = None,
    threads: int | None = None,
) -> Decoder:
    """Load a bundle.

    Args:
        path: the bundle's folder.
        provider: ``auto``, or an execution provider by name (cpu, cuda, …).
        provider_options: passed to the provider as they are.
        threads: the physical cores this process may use when None.

    Raises:
        BundleError: the bundle is missing, damaged or unsafe.
        ProviderError: the named provider is not available.
        UnsupportedError: the bundle is of a form this version does not run.
    """
    bundle = open_bundle(path)
    if bundle.manifest.form != "decoder":
        raise UnsupportedError(f"{path} is of the form {bundle.manifest.form!r}; this version runs decoders: upgrade")
    return Decoder(bundle, provider=provider, provider_options=provider_options, threads=threads)
