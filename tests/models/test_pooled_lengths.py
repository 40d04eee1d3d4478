"""Funnel-Transformer, whose blocks pool their tokens, equals transformers for texts of every length that it pools."""

from __future__ import annotations

import copy

import onnxruntime as ort
import pytest
import torch

from tests.checkpoints.decoder_families import CONTEXT, VOCAB
from tests.checkpoints.encoder_families import build_encoder
from tests.models.test_encoder_families import assert_close, reference
from triform.export.graph.fusion import fuse
from triform.export.graph.tracing import trace
from triform.export.options import ExportOptions
from triform.export.quantize.blocks import lower_to_float
from triform.export.quantize.encoder import quantize_encoder, write_calibration_graph
from triform.export.runners import EncoderRunner
from triform.export.write import write_graph
from triform.models.encoder.equal_lengths import shortest_row, without_padding
from triform.models.encoder.graph import encoder_spec
from triform.models.encoder.tasks import text_task

INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def traced(settings):
    """A random model, and its graph, fused but not lowered."""
    model = build_encoder("funnel", "FunnelModel", **settings)
    task = without_padding(model, text_task("feature-extraction", INPUTS, False))
    assert task.inputs == ("input_ids", "token_type_ids")
    # Of 5 tokens the first block leaves 3, which the next one still pools; of 4 it leaves 2.
    assert shortest_row(model, task) == 5
    spec, prepared = encoder_spec(model, task, "encoder", CONTEXT)
    with prepared:
        graph = trace(spec)
    fuse(graph)
    return model, graph


@pytest.fixture(scope="module")
def plain():
    return traced({})


def random_batch(length, generator):
    ids = torch.randint(3, VOCAB, (2, length), generator=generator)
    # The first token is of a kind of its own, as funnel's tokenizer has it.
    types = torch.cat([torch.full((2, 1), 2), torch.randint(0, 2, (2, length - 1), generator=generator)], 1)
    return {"input_ids": ids, "token_type_ids": types}


def arrays(batch):
    return {name: tensor.numpy() for name, tensor in batch.items()}


@pytest.mark.parametrize(
    "settings",
    [None, pytest.param({"pooling_type": "max", "pool_q_only": False}, marks=pytest.mark.more_families)],
)
def test_every_length_matches_transformers(settings, plain, tmp_path):
    model, graph = plain if settings is None else traced(settings)
    graph = graph.clone()
    lower_to_float(graph)
    write_graph(graph, tmp_path / "encoder.onnx")
    session = ort.InferenceSession(str(tmp_path / "encoder.onnx"), providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(1)
    for length in (*range(5, 14), 40):
        batch = random_batch(length, generator)
        (actual,) = session.run(["last_hidden_state"], arrays(batch))
        assert_close(torch.from_numpy(actual), reference(model, batch).last_hidden_state)


def share_of_error_by_rounding(model, batches):
    """The error of a model with weights rounded to 8 bits by output column and activations by row, in PyTorch."""
    copied = copy.deepcopy(model)
    for module in copied.modules():
        if isinstance(module, torch.nn.Linear):
            module.weight.data = nearest_of_8_bits(module.weight.data)
            module.register_forward_pre_hook(lambda _, arguments: (nearest_of_8_bits(arguments[0]),))
    return share_of_error(model, batches, [reference(copied, batch).last_hidden_state for batch in batches])


def nearest_of_8_bits(tensor):
    step = tensor.abs().amax(-1, keepdim=True) / 127
    return (tensor / step).round() * step


def share_of_error(model, batches, found):
    """The error of some outputs, as a share of the spread of the model's own."""
    expected = torch.cat([reference(model, batch).last_hidden_state for batch in batches], 1)
    spread = expected - expected.mean(-1, keepdim=True)
    return float(((torch.cat(found, 1) - expected).pow(2).mean() / spread.pow(2).mean()).sqrt())


def test_the_error_of_8_bits_is_that_of_rounding(plain, tmp_path):
    model, graph = plain
    generator = torch.Generator().manual_seed(2)
    batches = [random_batch(length, generator) for length in range(30, 39)]
    original = write_calibration_graph(graph, tmp_path / "float.onnx", 1)
    samples = [{name: array[0] for name, array in arrays(batch).items()} for batch in batches]
    # Scales by row for every product, as in PyTorch above.
    graph = graph.clone()
    quantize_encoder(graph, ExportOptions(quantize="int8"), original, samples, 0)
    write_graph(graph, tmp_path / "encoder.onnx")
    runner = EncoderRunner(tmp_path / "encoder.onnx", 1)
    found = [torch.from_numpy(runner.run(arrays(batch))["last_hidden_state"]) for batch in batches]
    # Its weights are three times as large as those of a new model, so that each softmax is nearly a choice of one key,
    # which rounding changes now and then.
    by_rounding = share_of_error_by_rounding(model, batches)
    assert by_rounding > 0.1
    assert 0.8 * by_rounding < share_of_error(model, batches, found) < 1.2 * by_rounding
    calm = copy.deepcopy(model)
    for name, parameter in calm.named_parameters():
        parameter.data.div_(3 if parameter.dim() > 1 and "embed" not in name else 1)
    assert share_of_error_by_rounding(calm, batches) < 0.015
