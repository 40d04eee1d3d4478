"""Opens the graphs of a decoder bundle."""

from __future__ import annotations

from typing import Any, Unpack

from triform.runtime.bundle.folder import Bundle
from triform.runtime.bundle.manifest import PROMPTS, CacheInfo
from triform.runtime.graphs.decoding.prompts import PromptGraphs
from triform.runtime.graphs.device.opening import open_decoder
from triform.runtime.graphs.session import SessionOptions
from triform.runtime.graphs.signature import check_decoder


def open_graphs(bundle: Bundle, **options: Unpack[SessionOptions]) -> tuple[Any, CacheInfo, PromptGraphs]:
    """Open the decoder's graph; the one for long prompts, if there is one, is opened when it is needed.

    Args:
        bundle: of a decoder.
        options: see `SessionOptions`.

    Returns:
        the session of the decoder's graph, what it keeps of a text, and what reads prompts.

    Raises:
        BundleError: a file is damaged, or a graph does not match the manifest.
        ProviderError: the provider cannot be used.
    """
    session, cache = _open(bundle, "decoder", options)

    def open_long() -> Any:
        return _open(bundle, PROMPTS, options)[0]

    return session, cache, PromptGraphs(open_long if PROMPTS in bundle.manifest.graphs else None)


def _open(bundle: Bundle, name: str, options: SessionOptions) -> tuple[Any, CacheInfo]:
    path, _ = bundle.graph(name)
    session = open_decoder(path, bundle.manifest.target, **options)
    return session, check_decoder(session, bundle.manifest, path)
