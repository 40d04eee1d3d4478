"""What is refused and what is noted while a checkpoint is loaded, on small models and stand-ins."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, BertConfig, GPT2Config, GPT2Model, LlamaConfig

from tests.checkpoints.decoders import llama_folder
from triform.export.checkpoint import loading
from triform.export.checkpoint.accounting import without_weights
from triform.export.checkpoint.files.packed.packing import Packed, Packing, UnpackedWeight
from triform.export.checkpoint.resolve import find_checkpoint
from triform.models.paths import weights_not_finite
from triform.models.stored_weights import stored_weight
from triform.runtime.errors import ExportError


def source(**values):
    plain = {"name": "it", "gguf": None, "adapter": None, "packings": (), "trust_remote_code": False, "weights": None}
    return SimpleNamespace(**plain | {"model_folder": Path("m")} | values)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, False), ({"packings": (Packing("a", (), None, as_grid=True),)}, True),
        ({"packings": (Packing("a", (), None), Packing("b", (), None, as_grid=True))}, True),
        ({"packings": (Packing("a", (), None),)}, False),
        # What an adapter is merged into is no grid any more.
        ({"packings": (Packing("a", (), None, as_grid=True),), "adapter": Path("a")}, False),
    ],
)  # fmt: skip
def test_matrices_in_blocks(values, expected):
    assert loading.has_blocks(source(**values)) == expected


@pytest.mark.parametrize(
    ("own", "trusted", "noted"),
    [
        ({"AutoModel": "modeling_x.Own", "AutoConfig": "c.C"}, False, True), ({"AutoConfig": "c.C"}, False, False),
        ({"AutoModelForCausalLM": "modeling_x.Own"}, False, True), ({"AutoModel": "modeling_x.Own"}, True, False),
        (None, False, False), ({}, False, False),
    ],
)  # fmt: skip
def test_code_that_was_not_run_is_noted(own, trusted, noted):
    model = SimpleNamespace(config=SimpleNamespace(auto_map=own))
    found = loading._code_not_run(source(trust_remote_code=trusted), model)
    said = "modeling_x.py, which came with the checkpoint, was not run: SimpleNamespace of transformers was; "
    assert found == ((f"{said}`trust_remote_code` runs it",) if noted else ())


def test_an_adapter_beside_its_model_is_noted():
    assert loading._merged(source()) == loading._merged(source(adapter=Path("other"))) == ()
    (note,) = loading._merged(source(adapter=Path("m")))
    assert note.endswith("where its weights have it already, remove adapter_config.json")


def test_weights_that_are_missing():
    loading._check_missing(source(), [], ())
    loading._check_missing(source(), ["model.pooler.weight", "pooler.bias"], ("pooler",))
    with pytest.raises(ExportError, match=r"^it lacks 2 weights its config asks for, such as a\.poolers$"):
        loading._check_missing(source(), ["pooler.bias", "a.poolers", "b"], ("pooler",))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_that_are_no_numbers_are_refused(value, stored):
    """Also where no text of a comparison has the token; of a parameter that the checkpoint lacks they mean nothing."""
    model = torch.nn.Embedding(11, 8)
    weight = torch.full((11, 8), 6e4).to(stored)
    for place, expected in ((None, ()), ((10, 3), ("weight",))):
        if place is not None:
            weight[place] = value
        model._parameters["weight"] = stored_weight(weight) if stored.itemsize == 2 else torch.nn.Parameter(weight)
        assert tuple(weights_not_finite(model)) == expected
    loading._check_finite(source(), model, {"weight"})
    message = r"^it has numbers in its weight weight that are NaN or infinite; fetch the model again$"
    with pytest.raises(ExportError, match=message):
        loading._check_finite(source(), model, ())


def test_a_row_of_nan_that_no_sample_has_is_refused(tmp_path):
    llama_folder(tmp_path, tie_word_embeddings=False)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["model.embed_tokens.weight"][-1, 3] = math.nan
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    found = find_checkpoint(str(tmp_path))
    for as_stored in (False, True):
        with pytest.raises(ExportError, match=r"has numbers in its weight model\.embed_tokens\.weight that are NaN"):
            loading.load_model(found, loading.read_config(found), AutoModelForCausalLM, as_stored=as_stored)


def test_whole_numbers_for_a_parameter_are_refused():
    """Of a buffer that has whole numbers they are its own."""
    model = without_weights(GPT2Model, GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=11, n_positions=9))
    loading._refuse_integers(None, ["wte.weight"])
    loading._refuse_integers(model, ["nope.weight"])
    for name in ("wte.weight", "transformer.wte.weight"):
        with pytest.raises(ExportError, match=rf"^{name} is stored in whole numbers, and nothing says what they stand"):
            loading._refuse_integers(model, ["nope.weight", name])


def test_packed_matrices_of_gpt2_are_turned():
    """Its layers keep them the other way round; other tensors stay as they are."""
    model = without_weights(GPT2Model, GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=11, n_positions=9))
    numbers = torch.arange(6.0).view(2, 3)
    packing = Packing("a", (), lambda parts: numbers)

    def packed(name):
        return UnpackedWeight(Packed(name, {}, packing), {})

    tensors = {"h.0.attn.c_attn.weight": packed("x"), "wte.weight": packed("y"), "h.0.mlp.c_fc.weight": torch.ones(2)}
    found = loading._as_layers_keep_them(model, tensors)
    assert torch.equal(found["h.0.attn.c_attn.weight"][:], numbers.T) and torch.equal(found["wte.weight"][:], numbers)
    assert found["h.0.mlp.c_fc.weight"] is tensors["h.0.mlp.c_fc.weight"]
    assert loading._as_layers_keep_them(None, tensors) is tensors


def test_the_class_of_a_task():
    assert loading._class_of(source(), LlamaConfig(), AutoModelForCausalLM).__name__ == "LlamaForCausalLM"
    assert loading._class_of(source(), BertConfig(), AutoModelForMaskedLM).__name__ == "BertForMaskedLM"
    with pytest.raises(ExportError, match=r"^transformers has no AutoModelForMaskedLM for llama$"):
        loading._class_of(source(), LlamaConfig(), AutoModelForMaskedLM)
    with pytest.raises(ExportError, match=r"^they were not fetched$"):
        loading._read(source(), LlamaConfig(), AutoModelForCausalLM, False)
