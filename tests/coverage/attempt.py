"""Tries one type: makes its checkpoint, exports it as `triform export` does, and compares the bundle."""

from __future__ import annotations

import json
import re
import traceback
import warnings
from dataclasses import replace
from pathlib import Path

import onnx
from transformers import AutoConfig

from tests.coverage.checkpoints import NotTriedError, first_line
from tests.coverage.comparisons import DifferentError
from tests.coverage.forms import CONTEXT, FORMS
from tests.coverage.quantized import FLOAT32, Scheme, compare_quantized
from tests.coverage.records import NOT_TRIED, REFUSED, WORKS, Record
from triform.export.options import ExportOptions
from triform.export.pipeline import export
from triform.runtime.errors import TriformError

# Domains of plain ONNX.
_PLAIN = ("", "ai.onnx")
# Forms whose bundles read texts alone, also of models that read images besides.
_OF_TEXTS = ("decoder", "encoder", "encoder-decoder")


def attempt(form: str, name: str, folder: Path, scheme: Scheme = FLOAT32) -> Record:
    """Try one type, and say what came of it.

    Args:
        form: a key of `FORMS`.
        name: of a type or a variant.
        folder: an empty one, for the checkpoint and the bundle.
        scheme: how the weights are stored.
    """
    checkpoint, bundle = folder / name.replace("/", "-"), folder / "bundle"
    record = Record(form, name, NOT_TRIED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            task = FORMS[form].save(name, checkpoint)
        except NotTriedError as error:
            return replace(record, reason=str(error))
        except Exception as error:
            return replace(record, reason=f"{type(error).__name__}: {first_line(error)}")
        try:
            remark = _export(form, checkpoint, bundle, scheme)
        except TriformError as error:
            parity = "does not compute what PyTorch does" in str(error)
            return replace(record, result="parity" if parity else REFUSED, reason=first_line(error))
        except Exception as error:
            return replace(record, result="internal error", reason=_described(error))
        judged = _judged(record, task, checkpoint, bundle, scheme)
        return replace(judged, reason=remark) if judged.result == WORKS and not judged.reason else judged


def _export(form: str, checkpoint: Path, bundle: Path, scheme: Scheme) -> str:
    """Export as `triform export` does, or with the option that its refusal offers for texts.

    Returns:
        a remark, empty if no option was needed.
    """
    options = scheme.options(context_length=_context(form, checkpoint))
    try:
        export(str(checkpoint), bundle, options)
    except TriformError as error:
        offer = _offer(str(error), options) if form in _OF_TEXTS else None
        if offer is None:
            raise
        export(str(checkpoint), bundle, offer[0])
        return offer[1]
    return ""


def _offer(refusal: str, options: ExportOptions) -> tuple[ExportOptions, str] | None:
    """The options that a refusal says would do, and a remark on them."""
    length = re.search(r"with a context length of (\d+)", refusal)
    if length is not None:
        return replace(options, context_length=int(length[1])), "with no more context than a layer attends to at once"
    part = re.search(r"--task (\S+) exports (its language model|what it does with texts) alone", refusal)
    if part is not None:
        return replace(options, task=part[1]), f"with --task {part[1]}, {part[2]} alone"
    return None


def _context(form: str, checkpoint: Path) -> int | None:
    """The context length to ask for, where the config of a decoder sets none."""
    if form != "decoder":
        return None
    config = AutoConfig.from_pretrained(checkpoint).get_text_config()
    own = getattr(config, "max_position_embeddings", None)
    return CONTEXT if own is None or own < 1 else None


def _judged(record: Record, task: str, checkpoint: Path, bundle: Path, scheme: Scheme) -> Record:
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    form = FORMS[record.form]
    record = replace(record, task=manifest["task"], operators=_operators(bundle))
    if manifest["form"] != form.bundle_form_of(record.name) or (task and manifest["task"] != task):
        return replace(record, result="other form", reason=f"it became {manifest['form']} for {manifest['task']}")
    try:
        if scheme != FLOAT32:
            return replace(record, result=WORKS, reason=compare_quantized(record.form, checkpoint, bundle, scheme))
        return replace(record, result=WORKS, reason=form.compare(checkpoint, bundle))
    except DifferentError as error:
        return replace(record, result="differs", reason=str(error))
    except Exception as error:
        return replace(record, result="internal error", reason=f"comparing: {_described(error)}")


def _operators(bundle: Path) -> list[str]:
    names: set[str] = set()
    for path in bundle.glob("*.onnx"):
        graph = onnx.load(path, load_external_data=False).graph
        names |= {node.op_type for node in graph.node if node.domain not in _PLAIN}
    return sorted(names)


def _described(error: Exception) -> str:
    """The error, and the innermost place in which it was raised."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {first_line(error)} ({Path(frame.filename).name}:{frame.lineno})"
