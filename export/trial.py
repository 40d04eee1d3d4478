"""Uses a bundle as its reader will, before it gets its name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from triform.runtime.bundle.folder import open_bundle
from triform.runtime.bundle.media_info import ImageInfo
from triform.runtime.bundle.targets import needs_gpu
from triform.runtime.decoder.model import Decoder
from triform.runtime.encoder.model import Encoder
from triform.runtime.encoder_decoder.ask import Ask
from triform.runtime.encoder_decoder.model import EncoderDecoder
from triform.runtime.errors import ContextError, ExportError, InputError, TriformError
from triform.runtime.opening import load
from triform.runtime.speech.model import CtcModel
from triform.runtime.text.pages import laid_out

_TEXT = "Hello there, and good morning."
# What a template is tried with, from what most of them take to what some insist on; one must be taken.
_USER = {"role": "user", "content": _TEXT}
_CONVERSATIONS: tuple[list[dict[str, Any]], ...] = (
    [_USER],
    [{"role": "system", "content": _TEXT}, _USER],
    [{"role": "user", "content": [{"type": "text", "text": _TEXT}]}],
    [_USER, {"role": "assistant", "content": _TEXT}, _USER],
)
_TOOL = {
    "type": "function",
    "function": {"name": "look", "description": "Look.", "parameters": {"type": "object", "properties": {}}},
}


def try_bundle(folder: Path) -> None:
    """Open a bundle, render its chat templates, and run a text or an image.

    Models that read audio are opened only: their graphs were run on audio when they were compared with PyTorch. Of a
    bundle that only a GPU can run, the files are checked.

    Raises:
        ExportError: the runtime refuses something of it.
    """
    try:
        if needs_gpu(open_bundle(folder).manifest):
            return
        model = load(folder, verify="never", provider="cpu")
        if isinstance(model, Decoder):
            _try_decoder(model)
        elif isinstance(model, CtcModel):
            return
        elif isinstance(model, Encoder):
            _try_encoder(model)
        else:
            _try_encoder_decoder(model)
    except TriformError as error:
        reason = str(error).replace(f"{folder}/", "").removesuffix("; export the model again")
        raise ExportError(f"the bundle would not work: {reason}; this checkpoint cannot be exported as it is") from None


def _try_decoder(model: Decoder) -> None:
    info = model.manifest.tokenizer
    if info is not None:
        names = [*info.chat_templates, *(["default"] if info.chat_template is not None else [])]
        for name in names:
            _try_template(model, name)
    model.settle()
    try:
        next(iter(model.stream(_TEXT, raw=True)))
    except ContextError:
        # A model of so few tokens is run on what fits into its users' prompts.
        return


def _try_template(model: Decoder, name: str) -> None:
    refusal: InputError | None = None
    for tools in (None, [_TOOL]):
        for messages in _CONVERSATIONS:
            try:
                model.count_tokens(messages, template=name, tools=tools)
            except ContextError:
                return
            except InputError as error:
                refusal = refusal or error
            else:
                return
    if refusal is not None:
        reason = re.sub(r"; .{0,3}raw.*", "", str(refusal))
        raise ExportError(f"{name} template: {reason}; correct it or remove it")


def _try_encoder(model: Encoder) -> None:
    if model.rows is not None:
        step = model.step
        positions = [[0]] if "logits_positions" in step.inputs else None
        rows = model.rows.read([_TEXT if model.rows.boxes is None else laid_out(_TEXT)])
        _check_numbers(result for row in step.run(rows, list(step.outputs), positions) for result in row)
    if model.images is not None and model.info.image is not None:
        _check_numbers(model.images.feed(_image(model.info.image), list(model.images.outputs)))


def _try_encoder_decoder(model: EncoderDecoder) -> None:
    from triform.runtime.graphs.padding import text_arrays

    if model.info.source == "text":
        languages = model.text.languages
        ask = Ask(source_lang=next(iter(languages.sources), None), target_lang=next(iter(languages.targets), None))
        rows = model.text.read([_TEXT], source_lang=ask.source_lang, target_lang=ask.target_lang)
        arrays: dict[str, Any] = dict(text_arrays(rows, model.manifest.tokens.pad))
    elif model.info.image is not None:
        arrays = _image(model.info.image)
    else:
        return
    step = model.reader.batch_step(model.reader.read(arrays))
    _check_numbers([step.prefill([[model.info.decoder_start]])])


def _image(info: ImageInfo) -> dict[str, Any]:
    """The inputs of one image of a single color."""
    if info.patches is None:
        return {"pixel_values": np.zeros((1, info.channels, info.height, info.width), np.float32)}
    count, width = info.patches.count, info.patches.size**2 * info.channels
    return {
        "pixel_values": np.zeros((1, count, width), np.float32),
        "pixel_attention_mask": np.ones((1, count), np.int64),
        "spatial_shapes": np.array([[1, count]]),
    }


def _check_numbers(results: Iterable[Any]) -> None:
    if not all(np.isfinite(result).all() for result in results):
        raise ExportError(f"its graph gives no numbers for {_TEXT!r}")
