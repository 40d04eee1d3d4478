"""Compares what a bundle says of a text with what transformers says, from the same checkpoint."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

import triform
from tests.coverage.records import GIVEN_PAGES
from triform.runtime.generation.options.beams import Beams

TEXT = "The sea was calm that morning, and the old man"
NEW_TOKENS = 8
# Far above the rounding of float32 sums in another order, far below any mistake; relative to the largest value.
TOLERANCE = 1e-3


class DifferentError(Exception):
    """A bundle and transformers disagree; the message says by what."""


def reference_model(folder: Path) -> Any:
    """The model of a checkpoint, of the class that its config names, with transformers' own eager attention."""
    architecture = json.loads((folder / "config.json").read_text())["architectures"][0]
    return getattr(transformers, architecture).from_pretrained(folder, attn_implementation="eager").float().eval()


def compare_decoder(folder: Path, bundle: Path) -> str:
    """Compare the logits of a text and the greedy tokens after it; returns a remark.

    Raises:
        DifferentError: they differ by more than rounding.
    """
    tokenizer, reference = transformers.AutoTokenizer.from_pretrained(folder), reference_model(folder)
    decoder = triform.load_decoder(str(bundle), threads=1)
    ids = torch.tensor([tokenizer(TEXT)["input_ids"]])
    with torch.no_grad():
        logits = reference(input_ids=ids, use_cache=False).logits[0]
        without_cache = _greedy(reference, ids)
    _check_near("logits", decoder.logits(TEXT), logits)
    options = triform.GenerationOptions(max_new_tokens=NEW_TOKENS, temperature=0)
    tokens = list(decoder.generate(TEXT, options, raw=True).token_ids)
    try:
        with torch.no_grad():
            rows = reference.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW_TOKENS, do_sample=False
            )
    except Exception as error:
        expected, remark = without_cache, f"transformers' generate fails: {error}".splitlines()[0]
    else:
        expected, remark = rows[0, ids.shape[1] :].tolist(), ""
    if tokens == expected:
        return remark
    if tokens == without_cache:
        return "as transformers without its cache, which gives other tokens with it"
    if _is_near_tie(reference, ids, tokens, expected):
        return "tokens differ at a near tie"
    raise DifferentError(f"its tokens are {tokens}, those of transformers {expected}")


def _greedy(reference: Any, ids: torch.Tensor) -> list[int]:
    row = ids
    for _ in range(NEW_TOKENS):
        best = reference(input_ids=row, use_cache=False).logits[0, -1].argmax()
        row = torch.cat([row, best[None, None]], 1)
        if int(best) == reference.generation_config.eos_token_id:
            break
    return row[0, ids.shape[1] :].tolist()


def _is_near_tie(reference: Any, ids: torch.Tensor, tokens: list[int], expected: list[int]) -> bool:
    """Whether rounding decides between the first two tokens that differ."""
    pairs = enumerate(zip(tokens, expected, strict=False))
    place = next((index for index, (ours, theirs) in pairs if ours != theirs), None)
    if place is None:
        return False
    row = torch.cat([ids, torch.tensor([tokens[:place]], dtype=torch.int64)], 1)
    with torch.no_grad():
        logits = reference(input_ids=row, use_cache=False).logits[0, -1]
    return bool((logits[expected[place]] - logits[tokens[place]]).abs() <= TOLERANCE * logits.abs().max())


def compare_encoder(folder: Path, bundle: Path) -> str:
    """Compare the outputs of a text encoder's task for one text; returns a remark.

    Raises:
        DifferentError: they differ by more than rounding.
    """
    tokenizer, reference = transformers.AutoTokenizer.from_pretrained(folder), reference_model(folder)
    encoder = triform.load_encoder(str(bundle), threads=1)
    task = json.loads((bundle / "manifest.json").read_text())["task"]
    given = given_text(reference, TEXT)
    if task == "feature-extraction":
        output = outputs_of(reference, tokenizer, TEXT).last_hidden_state[0]
        _check_near("vectors", encoder.token_vectors([given])[0].vectors, output)
    elif task == "fill-mask":
        _compare_masked(encoder, reference, tokenizer)
    elif task == "text-classification":
        logits = outputs_of(reference, tokenizer, TEXT).logits[0]
        scores = {name: float(score) for name, score in encoder.classify([given])[0]}
        expected = logits.softmax(-1) if len(logits) > 1 else logits.sigmoid()
        labels = [reference.config.id2label[index] for index in range(len(logits))]
        _check_near("scores", np.array([scores[label] for label in labels]), expected)
    else:
        return f"{task} is compared by the export only"
    return "" if given == TEXT else GIVEN_PAGES


def _compare_masked(encoder: Any, reference: Any, tokenizer: Any) -> None:
    text = f"The sea was calm that {tokenizer.mask_token}, and the old man"
    ids = tokenizer(text)["input_ids"]
    logits = outputs_of(reference, tokenizer, text).logits[0, ids.index(tokenizer.mask_token_id)]
    probabilities = logits.softmax(-1)
    (fillings,) = encoder.fill_mask([given_text(reference, text)], top_k=20)[0]
    expected = torch.stack([probabilities[filling.token] for filling in fillings])
    _check_near("scores", np.array([filling.score for filling in fillings]), expected)
    _check_near("highest score", np.array([fillings[0].score]), probabilities.max()[None])


def given_text(reference: Any, text: str) -> Any:
    """A text, or a page with its words for a model that reads boxes."""
    if "bbox" not in inspect.signature(reference.forward).parameters:
        return text
    return triform.Page(text.split(), _boxes(text))


def _boxes(text: str) -> list[list[int]]:
    return [[17 * index, 23 * index, 40 * index + 9, 50 * index + 31] for index in range(len(text.split()))]


def _boxes_of_tokens(tokenizer: Any, text: str, model_type: str) -> torch.Tensor:
    """As transformers documents them for LayoutLM; BROS takes fractions of the page."""
    words = zip(text.split(), _boxes(text), strict=True)
    own = [box for word, box in words for _ in tokenizer(word, add_special_tokens=False)["input_ids"]]
    boxes = torch.tensor([[[0] * 4, *own, [1000] * 4]])
    return boxes / 1000 if model_type == "bros" else boxes


def outputs_of(reference: Any, tokenizer: Any, text: str) -> Any:
    """What a model of transformers says of a text, with the boxes of its words if it reads those."""
    batch = dict(tokenizer([text], return_tensors="pt"))
    known = inspect.signature(reference.forward).parameters
    batch = {name: tensor for name, tensor in batch.items() if name in known and name != "token_type_ids"}
    if "use_cache" in known:
        batch["use_cache"] = False
    if "bbox" in known:
        batch["bbox"] = _boxes_of_tokens(tokenizer, text, reference.config.model_type)
    with torch.no_grad():
        return reference(**batch)


def compare_encoder_decoder(folder: Path, bundle: Path) -> str:
    """Compare the greedy answers to a text; returns a remark.

    Raises:
        DifferentError: the token ids differ.
    """
    tokenizer, reference = transformers.AutoTokenizer.from_pretrained(folder), reference_model(folder)
    model = triform.load(str(bundle), threads=1)
    options = triform.GenerationOptions(max_new_tokens=NEW_TOKENS, temperature=0)
    tokens = list(model.generate(TEXT, options, beams=Beams(1)).token_ids)
    batch = {name: tensor for name, tensor in tokenizer([TEXT], return_tensors="pt").items() if "type" not in name}
    with torch.no_grad():
        row = reference.generate(**batch, max_new_tokens=NEW_TOKENS, max_length=None, do_sample=False, num_beams=1)
    expected = row[0].tolist()[1:]
    # A last token that ends the answer is not part of it.
    if tokens != expected[: len(tokens)] or len(expected) - len(tokens) > 1:
        raise DifferentError(f"its tokens are {tokens}, those of transformers {expected}")
    return ""


def compared_by_export(folder: Path, bundle: Path) -> str:
    """A remark: the comparison with PyTorch inside the export has to do."""
    return "compared by the export only"


def _check_near(what: str, actual: Any, expected: torch.Tensor) -> None:
    difference = np.abs(np.asarray(actual, np.float32) - expected.numpy())
    allowed = TOLERANCE * float(expected.abs().max())
    # Written so that NaN fails.
    if not float(difference.max()) <= allowed:
        raise DifferentError(f"its {what} differ by {float(difference.max()):.2g} (allowed {allowed:.2g})")
