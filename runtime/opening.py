"""`load(path)`: the one door into the runtime."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from triform.runtime.bundle.folder import Bundle, open_bundle
from triform.runtime.bundle.targets import for_gpu, has_gpu, needs_gpu
from triform.runtime.bundle.tasks import method_hint
from triform.runtime.bundle.verification import check_files
from triform.runtime.errors import ProviderError, ProviderWarning, UnsupportedError
from triform.runtime.graphs.providers.choice import is_for_gpu_bundles
from triform.runtime.graphs.session import SessionOptions, gpu_provider
from triform.runtime.verified_files import Verify

# Each form's class is imported when it is asked for: starting is most of the time of a short command.
if TYPE_CHECKING:
    from triform.runtime.decoder.model import Decoder
    from triform.runtime.encoder.model import Encoder
    from triform.runtime.encoder_decoder.model import EncoderDecoder
    from triform.runtime.speech.model import CtcModel, SpeechModel


class LoadOptions(SessionOptions, total=False):
    """How a bundle of any form is loaded.

    Attributes:
        verify: see `load`.
    """

    verify: Verify


def load(
    path: str | Path,
    *,
    verify: Verify = "once",
    shared: bool = False,
    **session_options: Unpack[SessionOptions],
) -> Decoder | Encoder | EncoderDecoder | CtcModel:
    """Load a bundle of any form: a speech model is a `SpeechModel`, which is an `EncoderDecoder` too, or a `CtcModel`.

    Args:
        path: the bundle's folder.
        verify: when to compare files with their hashes: ``always``; ``once``, which hashes weights again only after
            they changed; or ``never``. See `check_files`.
        shared: let the calls of other threads on a decoder wait for their turn, rather than refuse them. Models of
            other forms run the calls of several threads side by side.
        session_options: ``provider``, ``provider_options`` and ``threads``; see `SessionOptions`.

    Raises:
        BundleError: the bundle is missing, damaged or unsafe.
        ProviderError: the named provider is not available.
        UnsupportedError: the bundle is of a form this version does not run.
    """
    bundle, session_options = _open(path, verify, session_options)
    form = bundle.manifest.form
    if form == "decoder":
        from triform.runtime.decoder.model import Decoder

        return Decoder(bundle, **session_options, shared=shared)
    if form == "encoder":
        if _writes_by_ctc(bundle):
            from triform.runtime.speech.model import CtcModel

            return CtcModel(bundle, **session_options)
        from triform.runtime.encoder.model import Encoder

        return Encoder(bundle, **session_options)
    if form == "encoder-decoder":
        kind = _kind_of_encoder_decoder(bundle)
        return kind(bundle, **session_options)
    raise UnsupportedError(f"{path} is of the form {form!r}, which this version does not run: upgrade")


def load_decoder(
    path: str | Path,
    *,
    verify: Verify = "once",
    shared: bool = False,
    **session_options: Unpack[SessionOptions],
) -> Decoder:
    """Load a bundle that generates text. Arguments and errors as `load`."""
    bundle, session_options = _open(path, verify, session_options)
    _check_form(bundle, "decoder")
    from triform.runtime.decoder.model import Decoder

    return Decoder(bundle, **session_options, shared=shared)


def load_encoder(
    path: str | Path,
    *,
    verify: Verify = "once",
    strict: bool = False,
    **session_options: Unpack[SessionOptions],
) -> Encoder:
    """Load a bundle that reads texts or images as a whole. Arguments and errors as `load`.

    Args:
        path: see `load`.
        verify: see `load`.
        strict: refuse texts that are longer than the model can read, rather than truncating them.
        session_options: see `load`.
    """
    bundle, session_options = _open(path, verify, session_options)
    _check_form(bundle, "encoder")
    if _writes_by_ctc(bundle):
        hint = method_hint(bundle.manifest.task, "")
        raise UnsupportedError(f"{bundle.folder} is for {bundle.manifest.task}: {hint}")
    from triform.runtime.encoder.model import Encoder

    return Encoder(bundle, **session_options, strict=strict)


def load_encoder_decoder(
    path: str | Path,
    *,
    verify: Verify = "once",
    strict: bool = False,
    **session_options: Unpack[SessionOptions],
) -> EncoderDecoder:
    """Load a bundle that writes about what it reads. Arguments and errors as `load_encoder`."""
    bundle, session_options = _open(path, verify, session_options)
    _check_form(bundle, "encoder-decoder")
    kind = _kind_of_encoder_decoder(bundle)
    return kind(bundle, **session_options, strict=strict)


def load_speech(
    path: str | Path,
    *,
    verify: Verify = "once",
    **session_options: Unpack[SessionOptions],
) -> SpeechModel | CtcModel:
    """Load a bundle that transcribes speech. Arguments and errors as `load`."""
    from triform.runtime.speech.model import CtcModel, SpeechModel

    bundle, session_options = _open(path, verify, session_options)
    if _writes_by_ctc(bundle):
        return CtcModel(bundle, **session_options)
    _check_form(bundle, "encoder-decoder")
    if _kind_of_encoder_decoder(bundle) is not SpeechModel:
        hint = method_hint(bundle.manifest.task, "export a speech model")
        raise UnsupportedError(f"{bundle.folder} is for {bundle.manifest.task}, not for speech: {hint}")
    return SpeechModel(bundle, **session_options)


def _writes_by_ctc(bundle: Bundle) -> bool:
    return bundle.manifest.encoder is not None and bundle.manifest.encoder.ctc is not None


def _kind_of_encoder_decoder(bundle: Bundle) -> type[EncoderDecoder]:
    """The class of an encoder-decoder by what it reads."""
    info = bundle.manifest.encoder_decoder
    if info is not None and info.source == "audio":
        from triform.runtime.speech.model import SpeechModel

        return SpeechModel
    from triform.runtime.encoder_decoder.model import EncoderDecoder

    return EncoderDecoder


def _open(path: str | Path, verify: Verify, options: SessionOptions) -> tuple[Bundle, SessionOptions]:
    """Open a bundle as if it had the graphs only that the provider runs; name the provider where it is not named."""
    bundle = open_bundle(path)
    check_files(bundle, verify)
    manifest = bundle.manifest
    provider = options.get("provider", "auto").lower().removesuffix("executionprovider")
    if not has_gpu(manifest):
        return bundle, options
    if provider == "auto":
        gpu = gpu_provider()
        if gpu is None and manifest.target == "gpu" and not needs_gpu(manifest):
            warnings.warn(
                f"{path} is made for GPUs and none can be used here (see `triform doctor`): it runs on the CPU, slowly",
                ProviderWarning,
                stacklevel=3,
            )
        provider = gpu or "cpu"
        options = {**options, "provider": provider}
    if is_for_gpu_bundles(provider):
        return replace(bundle, manifest=for_gpu(manifest)), options
    if provider == "cpu":
        _check_on_cpu(bundle)
    else:
        _check_on_other(bundle, provider)
    return replace(bundle, manifest=replace(manifest, gpu=None)), options


def _check_on_cpu(bundle: Bundle) -> None:
    if needs_gpu(bundle.manifest):
        raise ProviderError(f"{bundle.folder} computes with bfloat16, which needs a GPU: see `triform doctor`")


def _check_on_other(bundle: Bundle, provider: str) -> None:
    """Refuse graphs whose cache lies on a device, if no memory of the provider's device can be used for it."""
    manifest = bundle.manifest
    if manifest.target == "gpu" and manifest.form != "encoder":
        raise ProviderError(
            f"{bundle.folder} is made for GPUs, and only the provider cuda keeps its cache on one, not {provider}; "
            "export the model with `ExportOptions.target` cpu for it"
        )


def _check_form(bundle: Bundle, expected: str) -> None:
    form, task = bundle.manifest.form, bundle.manifest.task
    if form != expected:
        hint = method_hint(task, "upgrade, or export another model")
        raise UnsupportedError(
            f"{bundle.folder} is of the form {form!r}, for {task}, not of the form {expected!r}: {hint}"
        )
