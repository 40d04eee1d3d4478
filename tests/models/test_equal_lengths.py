"""Families that read the padding behind a text: one graph, right at every length for rows without padding."""

from __future__ import annotations

import dataclasses

import onnxruntime as ort
import pytest
import torch

from tests.checkpoints.encoder_families import EQUAL_LENGTHS, build_encoder
from triform.export.graph.fusion import fuse
from triform.export.graph.tracing import trace
from triform.export.quantize.blocks import lower_to_float
from triform.export.write import write_graph
from triform.models.encoder import graph as encoder_module
from triform.models.encoder.equal_lengths import shortest_row, without_padding
from triform.models.encoder.graph import encoder_spec
from triform.models.encoder.tasks import text_task
from triform.models.errors import UnsupportedModelError
from triform.models.spec import GraphInput, GraphSpec
from triform.models.traceable.any_length import any_length
from triform.models.traceable.convolutions import as_products

# As `triform export` allows, which is far above float32 rounding and far below any mistake.
TOLERANCE = 5e-4
# Of one token, of every remainder of what CANINE puts together, and around blocks, CANINE's real ones too.
LENGTHS = (*range(1, 41), 63, 64, 65, 127, 128, 129, 130, 319)
# The first and last of every plane of Unicode, and those around surrogates.
EDGES = [one for plane in range(17) for one in (plane << 16, (plane << 16) + 0xFFFF)] + [0xD7FF, 0xE000, 0x1F600]


def task(*inputs):
    return text_task("feature-extraction", inputs, False)


def inputs_of(model, length, rows=2):
    generator = torch.Generator().manual_seed(length)
    vocabulary = getattr(model.config, "vocab_size", None)
    if vocabulary is not None:
        return torch.randint(3, vocabulary, (rows, length), generator=generator)
    edges = torch.tensor(EDGES)[torch.randint(0, len(EDGES), (rows, length), generator=generator)]
    anything = torch.randint(0, 0x110000, (rows, length), generator=generator)
    return torch.where(torch.rand(rows, length, generator=generator) < 0.3, edges, anything)


def reference(model, ids):
    """What transformers says of rows without padding."""
    model.set_attn_implementation("eager")
    with torch.no_grad():
        return model(ids).last_hidden_state


def assert_close(actual, expected):
    assert actual.shape == expected.shape
    # Written so that NaN fails.
    assert (actual - expected).abs().max() <= TOLERANCE * expected.abs().max()


# Of funnel, `test_pooled_lengths.py`.
@pytest.mark.parametrize("family", sorted(EQUAL_LENGTHS.keys() - {"funnel"}))
def test_family_matches_transformers_at_every_length(family, tmp_path):
    model = build_encoder(family)
    least = {"canine": 4}.get(family, 1)
    lengths = [*LENGTHS, *((513, 600) if family == "canine" else ())]
    expected = {length: reference(model, inputs_of(model, length)) for length in lengths if length >= least}
    spec, prepared = encoder_spec(model, task("input_ids"), "encoder", max(lengths))
    with prepared:
        graph = trace(spec)
    fuse(graph)
    lower_to_float(graph)
    write_graph(graph, tmp_path / "encoder.onnx")
    session = ort.InferenceSession(str(tmp_path / "encoder.onnx"), providers=["CPUExecutionProvider"])
    for length, states in expected.items():
        (found,) = session.run(None, {"input_ids": inputs_of(model, length).numpy()})
        assert_close(torch.from_numpy(found), states)


@pytest.mark.parametrize("family", ["canine", "convbert"])
def test_padding_is_read(family):
    model = build_encoder(family)
    ids = inputs_of(model, 40)
    mask = (torch.arange(40) < torch.tensor([[29], [40]])).long()
    ids[0, 29:] = 0
    with torch.no_grad():
        together = model(ids, attention_mask=mask).last_hidden_state[:1, :29]
        alone = model(ids[:1, :29]).last_hidden_state
    assert (together - alone).abs().max() > 0.01 * alone.abs().max()
    masked = task("input_ids", "attention_mask", "token_type_ids")
    assert without_padding(model, masked).inputs == ("input_ids", "token_type_ids")
    with pytest.raises(UnsupportedModelError, match="its results for a text depend on the padding after it"):
        encoder_spec(model, masked, "encoder", 300)


def test_other_families_keep_their_mask():
    masked = task("input_ids", "attention_mask")
    assert without_padding(build_encoder("bert"), masked) == masked


def test_shortest_row():
    model = build_encoder("canine")
    assert shortest_row(model, task("input_ids")) == 4
    reference(model, inputs_of(model, 4))
    with pytest.raises(RuntimeError):
        reference(model, inputs_of(model, 3))
    assert shortest_row(build_encoder("convbert"), task("input_ids")) == 1


def test_a_model_for_one_length_is_refused():
    model = build_encoder("bert")

    def only_eight(module, arguments, options):
        if options["input_ids"].shape[1] != 8:
            raise RuntimeError("eight")

    model.register_forward_pre_hook(only_eight, with_kwargs=True)
    with pytest.raises(UnsupportedModelError, match=r"^it does not read a text of 11 tokens: eight$"):
        without_padding(model, task("input_ids", "attention_mask"))


def test_a_model_that_reads_nothing_short_is_refused_with_its_own_words():
    model = build_encoder("bert")

    def nothing(module, arguments, options):
        raise RuntimeError(f"{options['input_ids'].shape[1]} tokens are too few")

    model.register_forward_pre_hook(nothing, with_kwargs=True)
    message = r"^it reads no text of up to 64 tokens: 64 tokens are too few$"
    with pytest.raises(UnsupportedModelError, match=message):
        shortest_row(model, task("input_ids"))


class Blocks(torch.nn.Module):
    """Sums within blocks of 16 tokens, by a loop that torch.export unrolls."""

    def forward(self, ids):
        sums = [block.float().sum(1, keepdim=True).expand(block.shape) for block in ids.split(16, dim=1)]
        return torch.cat(sums, dim=1)[:, :1]


@pytest.mark.parametrize("longest", [8, 600])
def test_what_is_traced_for_some_lengths_only_is_refused(longest):
    """torch.export takes the one block of its example for everyone's, which is right for texts of a block at most."""
    example = GraphInput("input_ids", torch.arange(22).reshape(2, 11), ((0, "batch"), (1, "sequence")))
    spec = GraphSpec("encoder", Blocks(), (example,), ("sums",), (), longest)
    if longest == 8:
        assert trace(spec) is not None
    else:
        with pytest.raises(UnsupportedModelError, match=r"would read no more than 16 tokens"):
            trace(spec)


def test_replacements_compute_what_they_replace():
    model = build_encoder("canine")
    expected = {length: reference(model, inputs_of(model, length)) for length in (4, 7, 16, 33, 130)}
    with any_length(model), as_products(model):
        replaced = [name for module in model.modules() for name in module.__dict__ if name in REPLACED]
        assert sorted(replaced) == sorted(REPLACED)
        for length, states in expected.items():
            assert_close(reference(model, inputs_of(model, length)), states)
    assert not [name for module in model.modules() for name in module.__dict__ if name in REPLACED]


# The local attention, both convolutions, and two methods of the model.
REPLACED = ["forward", "forward", "forward", "_downsample_attention_mask", "_repeat_molecules"]


def test_blocks_of_another_kind_are_left_alone():
    """Where all blocks see the first position too, this is not attention within blocks."""
    model = build_encoder("canine")
    for module in model.modules():
        if getattr(module, "local", False):
            module.always_attend_to_first_position = True
    with any_length(model):
        assert not any("forward" in module.__dict__ for module in model.modules())


def test_outputs_see_a_mask_in_any_case():
    model = build_encoder("fnet")
    seen = {}

    def outputs(found):
        seen.update(found)
        return {"last_hidden_state": found["last_hidden_state"]}

    asked = dataclasses.replace(task("input_ids"), outputs=outputs)
    encoder_module.reference_outputs(model, asked, (torch.tensor([[5, 6, 7]]),))
    assert seen["attention_mask"].tolist() == [[1, 1, 1]]
