from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForSeq2SeqLM,
    BartConfig,
    BertConfig,
    BertModel,
    ModernBertConfig,
    ModernBertModel,
    PretrainedConfig,
    PreTrainedModel,
    T5Config,
)

from tests.checkpoints.decoder_families import FAMILIES, build
from tests.helpers.same_graphs import computed
from triform.export.graph import tracing
from triform.export.graph.tracing import trace
from triform.models.alike_layers import watched_layers
from triform.models.decoder.graph import decoder_spec
from triform.models.encoder.graph import encoder_spec
from triform.models.encoder_decoder.graph import EncoderInputs, encoder_decoder_specs
from triform.models.spec import EncoderTask, GraphInput, GraphSpec

# By family: what differs from the small config, and how many layers are traced.
DECODERS: dict[str, tuple[dict[str, Any], int]] = {
    "llama": ({"num_hidden_layers": 6}, 2),
    "gemma3_text": ({"num_hidden_layers": 8, "layer_types": ["sliding_attention", "full_attention"] * 4}, 3),
    "gpt2": ({"n_layer": 6}, 2),
    "mixtral": ({"num_hidden_layers": 6}, 2),
}
ENCODER_DECODERS: dict[str, tuple[PretrainedConfig, int]] = {
    "bart": (
        BartConfig(
            vocab_size=97, d_model=48, encoder_layers=6, decoder_layers=5, encoder_attention_heads=3,
            decoder_attention_heads=2, encoder_ffn_dim=56, decoder_ffn_dim=72, max_position_embeddings=32,
        ),
        2,
    ),
    # Its first layers compute the biases of positions for all others.
    "t5": (T5Config(vocab_size=97, d_model=40, d_kv=24, d_ff=56, num_layers=7, num_decoder_layers=6, num_heads=3), 3),
}  # fmt: skip


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[GraphSpec]:
    """The specs that are traced, in part or as a whole, as they are."""
    specs: list[GraphSpec] = []
    original = tracing._traced

    def spy(spec: GraphSpec, *arguments: Any) -> Any:
        specs.append(spec)
        return original(spec, *arguments)

    monkeypatch.setattr(tracing, "_traced", spy)
    return specs


def check_is_the_whole_trace(spec: GraphSpec, traced: list[GraphSpec], times: int = 1) -> None:
    actual = computed(trace(spec))
    assert len(traced) == times
    assert actual == computed(trace(dataclasses.replace(spec, alike=None)))


@pytest.mark.parametrize("family", DECODERS)
def test_that_repeated_layers_of_decoders_are_those_of_a_whole_trace(family: str, traced: list[GraphSpec]) -> None:
    (model_type, settings), (deeper, needed) = FAMILIES[family], DECODERS[family]
    spec, prepared = decoder_spec(build(model_type, {**settings, **deeper}), 64)
    with prepared:
        assert spec.alike is not None
        assert spec.alike.traced == needed
        check_is_the_whole_trace(spec, traced)


def encoders() -> dict[str, PreTrainedModel]:
    sizes = {"vocab_size": 97, "hidden_size": 48, "intermediate_size": 40, "num_attention_heads": 3}
    return {
        "bert": BertModel(BertConfig(**sizes, num_hidden_layers=6), add_pooling_layer=False),
        "modernbert": ModernBertModel(
            ModernBertConfig(**sizes, num_hidden_layers=9, local_attention=8, pad_token_id=0, bos_token_id=1,
                             eos_token_id=2, cls_token_id=1, sep_token_id=2)
        ),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["bert", "modernbert"])
def test_that_repeated_layers_of_encoders_are_those_of_a_whole_trace(name: str, traced: list[GraphSpec]) -> None:
    torch.manual_seed(0)
    task = EncoderTask(
        ("input_ids", "attention_mask"), lambda results: {"last_hidden_state": results["last_hidden_state"]}
    )
    spec, prepared = encoder_spec(encoders()[name].eval(), task, "encoder", 64)
    with prepared:
        assert spec.alike is not None
        check_is_the_whole_trace(spec, traced)


@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_that_repeated_layers_of_both_graphs_are_those_of_whole_traces(name: str, traced: list[GraphSpec]) -> None:
    config, needed = ENCODER_DECODERS[name]
    torch.manual_seed(0)
    model = AutoModelForSeq2SeqLM.from_config(config).eval()
    ids, axes = torch.randint(4, 97, (2, 5)), ((0, "batch"), (1, "source"))
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    source = EncoderInputs({"input_ids": ids, "attention_mask": mask}, {"input_ids": axes, "attention_mask": axes})
    specs, prepared = encoder_decoder_specs(model, source, 32)
    with prepared:
        for spec in (specs.encoder, specs.decoder):
            traced.clear()
            assert spec.alike is not None
            assert spec.alike.traced == needed
            check_is_the_whole_trace(spec, traced)


class Layer(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = torch.nn.Linear(3, 5), torch.nn.Linear(5, 3)

    def forward(self, x: torch.Tensor, y: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        y = x if y is None else y
        return y * 2, x + self.down(torch.relu(self.up(y)))


class Exchanging(torch.nn.Module):
    """Layers that exchange two values; or one, which is also the result."""

    def __init__(self, values: int) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(Layer() for _ in range(6))
        self._values = values

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self._values == 1:
            for layer in self.layers:
                _, x = layer(x, None)
            return x
        x, y = x, x + 1
        for layer in self.layers:
            x, y = layer(x, y)
        return x * y


def spec_of(model: torch.nn.Module) -> GraphSpec:
    example = GraphInput("x", torch.randn(2, 3), ((0, "batch"),))
    with torch.no_grad(), watched_layers(model) as watch:
        model(example.example)
    spec = GraphSpec("model", model, (example,), ("result",), (), None, alike=watch.alike())
    assert spec.alike is not None
    return spec


def test_that_the_result_of_the_last_layer_can_be_the_graph_s() -> None:
    spec = spec_of(Exchanging(1))
    graph = trace(spec).graph
    assert [value.name for value in graph.outputs] == ["result"]
    assert sum(node.op_type == "Relu" for node in graph) == 6
    assert computed(trace(spec)) == computed(trace(dataclasses.replace(spec, alike=None)))


def test_that_layers_that_exchange_two_values_are_traced_as_a_whole(traced: list[GraphSpec]) -> None:
    check_is_the_whole_trace(spec_of(Exchanging(2)), traced, times=2)


class Choosing(torch.nn.Module):
    """Layers that compute as many rows as there are numbers of a kind."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(ChoosingLayer() for _ in range(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class ChoosingLayer(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.product = torch.nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = torch.nonzero(x[:, 0] > -1e9)[:, 0]
        return x + self.product(x[rows]).sum(0)


def test_that_sizes_that_numbers_decide_are_each_layer_s_own(traced: list[GraphSpec]) -> None:
    check_is_the_whole_trace(spec_of(Choosing()), traced, times=2)
