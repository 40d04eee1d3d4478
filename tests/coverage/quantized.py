"""Measures what a quantized bundle loses, against transformers and against transformers with its weights rounded alike.

How much rounding changes a tiny model of random weights depends on the model: some are nearly chaotic. So the same
model is run a second time in PyTorch with each weight rounded to the nearest of as many levels, and the bundle may lose
a few times as much. A swapped axis, a wrong scale or a wrong table loses everything.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import transformers

import triform
from tests.coverage.comparisons import NEW_TOKENS, TEXT, DifferentError, given_text, outputs_of, reference_model
from tests.coverage.configs import VOCAB
from triform.export.options import ExportOptions
from triform.runtime.generation.options.beams import Beams

_NONE = "none"
# How many times what rounding the weights alone loses a bundle may lose, and what it always may. Activations are
# rounded to 8 bits too, which counts beside weights of 8 bits.
_TIMES, _ALWAYS = {8: 4.0, 4: 1.5}, 0.02
_BLOCK = 32

# What a bundle says, what a model of transformers says of the same, and what that is.
Numbers = tuple[np.ndarray, Callable[[Any], torch.Tensor]]


@dataclass(frozen=True)
class Scheme:
    """How the weights are stored, by its name: none, int8, int4, or a goal in bits a weight, such as 5.5."""

    name: str = _NONE

    def options(self, **others: Any) -> ExportOptions:
        """Options of an export."""
        if self.name in (_NONE, "int8", "int4"):
            return ExportOptions(quantize=self.name, **others)
        return ExportOptions(target_bits=float(self.name), **others)

    @property
    def bits(self) -> int:
        """Of the weights that are rounded to compare with."""
        return 8 if self.name == "int8" else 4


FLOAT32 = Scheme()


def compare_quantized(form: str, folder: Path, bundle: Path, scheme: Scheme) -> str:
    """Compare what a quantized bundle says with transformers; returns a remark with what it loses.

    Raises:
        DifferentError: it loses far more than rounding does, or takes more bytes than the float32 weights.
    """
    _check_size(folder, bundle)
    if form in ("speech", "image"):
        return _recorded(bundle)
    reference = reference_model(folder)
    actual, of = _NUMBERS[form](folder, bundle, reference)
    expected = of(reference).numpy()
    loss = _loss(actual, expected)
    alone = _loss(of(rounded(reference, scheme.bits)).numpy(), expected)
    remark = f"loses {loss:.2g}, its weights rounded in PyTorch {alone:.2g}"
    # Written so that NaN fails.
    if not loss <= _TIMES[scheme.bits] * alone + _ALWAYS:
        raise DifferentError(remark)
    return remark


def rounded(model: Any, bits: int) -> Any:
    """A copy of a model whose matrices are rounded to the nearest of the levels of blocks of 32 weights."""
    model, most = copy.deepcopy(model), 2 ** (bits - 1) - 1
    with torch.no_grad():
        for parameter in model.parameters():
            # Of three axes: those of experts, and not of convolutions.
            if parameter.dim() != 2 and (parameter.dim() != 3 or parameter.shape[-1] < _BLOCK):
                continue
            for block in parameter.split(_BLOCK, dim=-1):
                scale = block.abs().amax(-1, keepdim=True).clamp_min(1e-12) / most
                block.copy_((block / scale).round() * scale)
    return model


def _loss(actual: np.ndarray, expected: np.ndarray) -> float:
    """The root of the mean square of a row's differences, relative to that of what is expected; the median of the rows.

    Not the mean, because a token near a tie of two experts may go to the other one, and then changes altogether.
    """
    wrong, size = (np.mean(values**2, axis=-1) for values in (actual - expected, expected))
    return float(np.median(np.sqrt(wrong / size)))


def _check_size(folder: Path, bundle: Path) -> None:
    """Check that weights did not grow; what fills the files up to whole pages does not count."""
    stored = {
        tuple(sorted((entry.key, entry.value) for entry in tensor.external_data if entry.key != "checksum"))
        for path in bundle.glob("*.onnx")
        for tensor in onnx.load(path, load_external_data=False).graph.initializer
    }
    graphs = sum(int(dict(place)["length"]) for place in stored if place)
    weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    if graphs > weights:
        raise DifferentError(f"its graphs' constants take {graphs} bytes, the float32 weights {weights}")


def _decoder_numbers(folder: Path, bundle: Path, reference: Any) -> Numbers:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    decoder = triform.load_decoder(str(bundle), threads=1)
    ids = torch.tensor([tokenizer(TEXT)["input_ids"]])
    options = triform.GenerationOptions(max_new_tokens=NEW_TOKENS, temperature=0, logprobs=0)
    answer = decoder.generate(TEXT, options, raw=True)
    logits = decoder.logits(TEXT)
    _check_follows(decoder, tokenizer, answer, logits)

    def of(model: Any) -> torch.Tensor:
        with torch.no_grad():
            return model(input_ids=ids, use_cache=False).logits[0]

    return np.asarray(logits), of


def _check_follows(decoder: Any, tokenizer: Any, answer: Any, logits: np.ndarray) -> None:
    """Check that an answer begins with the likeliest token after the whole text."""
    if answer.token_ids[0] != int(logits[-1].argmax()):
        raise DifferentError(f"its answer begins with {answer.token_ids[0]}, its logits with {logits[-1].argmax()}")


def _encoder_numbers(folder: Path, bundle: Path, reference: Any) -> Numbers:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    encoder = triform.load_encoder(str(bundle), threads=1)
    task = json.loads((bundle / "manifest.json").read_text())["task"]
    if task == "fill-mask":
        return _masked_numbers(encoder, reference, tokenizer)
    if task == "text-classification":
        scores = dict(encoder.classify([given_text(reference, TEXT)])[0])
        labels = list(reference.config.id2label.values())
        return _centered(np.log([scores[label] for label in labels])), lambda model: torch.from_numpy(
            _centered(outputs_of(model, tokenizer, TEXT).logits[0].numpy())
        )
    if task != "feature-extraction":
        raise DifferentError(f"nothing compares {task}")
    vectors = encoder.token_vectors([given_text(reference, TEXT)])[0].vectors
    return np.asarray(vectors), lambda model: outputs_of(model, tokenizer, TEXT).last_hidden_state[0]


def _masked_numbers(encoder: Any, reference: Any, tokenizer: Any) -> Numbers:
    text = f"The sea was calm that {tokenizer.mask_token}, and the old man"
    place = tokenizer(text)["input_ids"].index(tokenizer.mask_token_id)
    (fillings,) = encoder.fill_mask([given_text(reference, text)], top_k=VOCAB)[0]
    tokens = [filling.token for filling in fillings]
    return _centered(np.log([filling.score for filling in fillings])), lambda model: torch.from_numpy(
        _centered(outputs_of(model, tokenizer, text).logits[0, place][tokens].numpy())
    )


def _encoder_decoder_numbers(folder: Path, bundle: Path, reference: Any) -> Numbers:
    """The log-probabilities of all tokens along the bundle's own answer, which transformers is made to write too."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = triform.load(str(bundle), threads=1)
    size = reference.get_output_embeddings().weight.shape[0]
    options = triform.GenerationOptions(max_new_tokens=NEW_TOKENS, temperature=0, logprobs=size)
    answer = model.generate(TEXT, options, beams=Beams(1)).logprobs
    batch = {name: tensor for name, tensor in tokenizer([TEXT], return_tensors="pt").items() if "type" not in name}
    tops = [{entry.id: entry.logprob for entry in token.top} for token in answer]
    ids = torch.tensor([sorted(top) for top in tops])

    def of(other: Any) -> torch.Tensor:
        with torch.no_grad():
            written = other.generate(
                **batch, max_new_tokens=len(answer), max_length=None, do_sample=False, num_beams=1, output_logits=True,
                prefix_allowed_tokens_fn=lambda _, row: [answer[len(row) - 1].id], return_dict_in_generate=True,
            )  # fmt: skip
        return torch.from_numpy(_centered(torch.cat(written.logits).gather(1, ids).numpy()))

    return _centered(np.array([[top[item] for item in sorted(top)] for top in tops])), of


def _centered(scores: np.ndarray) -> np.ndarray:
    return np.asarray(scores) - np.mean(scores, axis=-1, keepdims=True)


def _recorded(bundle: Path) -> str:
    """What the export itself says that rounding changed."""
    export = json.loads((bundle / "manifest.json").read_text())["export"]
    quantized = (export.get("parity") or export["encoder_parity"])["quantized"]
    return ", ".join(f"{name} {value:.2g}" for name, value in quantized.items() if value is not None)


_NUMBERS: dict[str, Callable[[Path, Path, Any], Numbers]] = {
    "decoder": _decoder_numbers,
    "encoder": _encoder_numbers,
    "classifier": _encoder_numbers,
    "embedder": _encoder_numbers,
    "encoder-decoder": _encoder_decoder_numbers,
}
