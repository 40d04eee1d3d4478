"""Opens an encoder bundle: its graphs, its tokenizer and the description of its outputs."""

from __future__ import annotations

from typing import Unpack

from triform.runtime.bundle.folder import Bundle
from triform.runtime.bundle.manifest import EncoderInfo, Manifest
from triform.runtime.bundle.tasks import method_hint
from triform.runtime.errors import BundleError, UnsupportedError
from triform.runtime.graphs.encoder_batch import EncoderStep, batch_size
from triform.runtime.graphs.session import SessionOptions, open_session
from triform.runtime.text.rows import NEEDS_BOXES, RowReader
from triform.runtime.text.tokenizer import bundle_tokenizer


class OpenEncoder:
    """An open encoder bundle, as every task needs it. `Encoder` adds the tasks.

    Attributes:
        providers: the execution providers in use, the first choice first.
        step: runs rows of token ids; the same as `images` for a model that reads only images.
        images: runs arrays of pixels; None for a model that does not read images.
        rows: tokenizes texts into rows; None for a model that does not read text.
        info: what the outputs mean.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        strict: bool = False,
        **session_options: Unpack[SessionOptions],
    ) -> None:
        """Open the bundle's graphs and tokenizer.

        Args:
            bundle: from `open_bundle`.
            strict: refuse texts that are longer than the model can read, instead of truncating them.
            session_options: see `SessionOptions`.

        Raises:
            BundleError: a file is damaged.
            ProviderError: the named provider cannot be used.
        """
        manifest = bundle.manifest
        if manifest.encoder is None:
            raise BundleError(f"{bundle.folder} is an encoder that does not say what its outputs mean; export it again")
        self._bundle = bundle
        self.info: EncoderInfo = manifest.encoder
        self.rows: RowReader | None = None
        if manifest.tokenizer is not None:
            tokenizer = bundle_tokenizer(bundle)
            limits = manifest.max_length, manifest.vocab_size
            least, boxes = self.info.min_length, self.info.boxes
            self.rows = RowReader(
                tokenizer, *limits, strict=strict, min_length=least, boxes=boxes,
                truncation_side=manifest.tokenizer.truncation_side,
            )  # fmt: skip
        path, graph = bundle.graph("encoder")
        session = open_session(path, **session_options)
        self.providers: list[str] = session.get_providers()
        size = batch_size(session)
        self.step = EncoderStep(session, graph, manifest.tokens.pad, equal_lengths=self.info.equal_lengths, size=size)
        self.images: EncoderStep | None = self.step if self.info.image is not None else None
        if self.info.contrast is not None:
            path, graph = bundle.graph("image")
            session = open_session(path, **session_options)
            self.images = EncoderStep(session, graph, None, size=size)

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest."""
        return self._bundle.manifest

    def reader(self) -> RowReader:
        """Return the reader that tokenizes texts into rows.

        Raises:
            UnsupportedError: the model does not read text.
        """
        if self.rows is None:
            raise UnsupportedError(f"{self._bundle.folder} is for {self.manifest.task}: it reads no text")
        return self.rows

    def require_texts_alone(self, purpose: str) -> None:
        """Check that the bundle reads no boxes.

        Args:
            purpose: what has only texts to give, for the message.

        Raises:
            UnsupportedError: it does.
        """
        if self.info.boxes is not None:
            raise UnsupportedError(f"{purpose} has only texts to give, but {NEEDS_BOXES}")

    def require(self, purpose: str, *tasks: str) -> None:
        """Check that the bundle is for one of `tasks`.

        Args:
            purpose: what the bundle is needed for, for the message.
            tasks: their names in the manifest.

        Raises:
            UnsupportedError: the bundle is for another task; the message names the method for that task.
        """
        task = self.manifest.task
        if task not in tasks:
            hint = method_hint(task, "export another model")
            raise UnsupportedError(f"{purpose} needs a bundle for {' or '.join(tasks)}; this one is for {task}: {hint}")
