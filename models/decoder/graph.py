"""Prepares a causal language model for tracing as one graph, for prefill, chunks and single steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from triform.models.alike_layers import AlikeLayers, watched_layers
from triform.models.attention.causal import CAUSAL, ForwardPass, LayerFacts, announce, attending, traced_pass
from triform.models.attention.complex_rotary import real_rotary
from triform.models.attention.own_causal import reads_key_positions, through_causal
from triform.models.attention.rotary import depends_on_length, fused_rotary, native_rotary, rotary_modules
from triform.models.attention.short_texts import all_selected, untempered
from triform.models.errors import UnsupportedModelError
from triform.models.paths import TOLERANCE, check_finite, choose_path, relative_difference
from triform.models.recurrent.passes import RecurrentPass, carrying
from triform.models.recurrent.replacing import recurrences_replaced
from triform.models.spec import GraphInput, GraphSpec, RecurrentState
from triform.models.traceable.experts import prepare_experts
from triform.models.traceable.picking import pick_positions
from triform.models.traceable.substitutions import single_operators

_EXAMPLE_BATCH = 2
# Begins the names of the inputs that are states of fixed size.
_PAST_STATE = "past_states."


@dataclass(frozen=True)
class _Path:
    """One way to trace a model; the fastest is tried first.

    Attributes:
        rotary: "fused" or "native", see `models/attention/rotary.py`.
        substitute: whether norms and activations become single operators.
    """

    rotary: str
    substitute: bool


@dataclass(frozen=True)
class _Layers:
    """What the layers of a model keep of a text, learned by running it once; each in the order that they run.

    Attributes:
        attention: the keys and values.
        states: the states of fixed size.
        alike: which layers compute the same, where some do and none has states.
    """

    attention: list[LayerFacts]
    states: list[RecurrentState]
    alike: AlikeLayers | None


class DecoderGraph(torch.nn.Module):
    """The module that is traced: from token ids to logits. Keys and values are added after tracing."""

    def __init__(self, model: PreTrainedModel, layers: _Layers, inputs: Sequence[str]) -> None:
        """Take a prepared model, what its layers keep, and the names of the inputs."""
        super().__init__()
        self.model = model
        self._layers, self._inputs = layers, inputs
        self._logits_positions: torch.Tensor | None = None
        model.get_output_embeddings().register_forward_pre_hook(self._pick_positions)

    def _pick_positions(self, _: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        hidden, positions = args[0], self._logits_positions
        return (hidden if positions is None else pick_positions(hidden, positions),)

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run one chunk of tokens.

        Args:
            inputs: input_ids, int64 (batch, sequence), rows shorter than the longest padded on the right with any id;
                past_lengths, int32 (batch,), tokens that each row has in its cache; logits_positions, int64 (batch,
                num_logits), the positions of this chunk to return logits for. Of models with biases by position also
                key_positions, int64 (total,), 0, 1, … for the keys of the longest row; in the finished graph it is
                computed, see `export/graph/cross_attention.py`. Of models with states of fixed size also new_lengths,
                int32 (batch,), tokens of each row in this chunk; and each state, float (batch, ...).

        Returns:
            logits float (batch, num_logits, vocab_size), and each state after the chunk.
        """
        values = dict(zip(self._inputs, inputs, strict=True))
        input_ids, past_lengths = values["input_ids"], values["past_lengths"]
        length = input_ids.shape[1]
        position_ids = past_lengths[:, None].to(torch.int64) + torch.arange(length)
        self._logits_positions = values["logits_positions"]
        attention = traced_pass(past_lengths, length, self._layers.attention, values.get("key_positions"))
        past = [value for name, value in values.items() if name.startswith(_PAST_STATE)]
        recurrent = RecurrentPass(past=past, new_lengths=values.get("new_lengths"))
        with attending(attention), carrying(recurrent):
            logits: torch.Tensor = self.model(input_ids=input_ids, position_ids=position_ids, use_cache=False).logits
        self._logits_positions = None
        return logits, *recurrent.present


def decoder_spec(model: PreTrainedModel, max_length: int) -> tuple[GraphSpec, ExitStack]:
    """Prepare `model` for tracing as a decoder.

    The model is changed in place; closing the returned stack restores what is shared with other models.

    Args:
        model: a transformers causal language model in float32, on CPU, in evaluation mode.
        max_length: most tokens of a row.

    Raises:
        UnsupportedModelError: no way to trace it reproduces the model's own logits.
    """
    if model.get_output_embeddings() is None:
        raise UnsupportedModelError("it has no language-model head")
    path, layers, stack = _choose_path(model, max_length)
    examples = (*_example_inputs(reads_key_positions(model)), *_example_states(layers.states))
    graph = GraphSpec(
        "decoder",
        DecoderGraph(model, layers, [item.name for item in examples]),
        examples,
        ("logits", *(f"present_states.{index}" for index in range(len(layers.states)))),
        tuple(layer.cache for layer in layers.attention),
        max_length,
        (
            ("attention", "com.microsoft::GroupQueryAttention" if layers.attention else "none"),
            ("rotary", path.rotary if layers.attention and rotary_modules(model) else "none"),
        ),
        tuple(layers.states),
        layers.alike,
    )
    return graph, stack


def _example_inputs(key_positions: bool) -> tuple[GraphInput, ...]:
    batch, length, num_logits, total = _EXAMPLE_BATCH, 5, 3, 7
    keys = GraphInput("key_positions", torch.arange(total), ((0, "total"),))
    return (
        GraphInput("input_ids", torch.ones(batch, length, dtype=torch.int64), ((0, "batch"), (1, "sequence"))),
        GraphInput("past_lengths", torch.zeros(batch, dtype=torch.int32), ((0, "batch"),)),
        GraphInput(
            "logits_positions", torch.zeros(batch, num_logits, dtype=torch.int64), ((0, "batch"), (1, "num_logits"))
        ),
        *((keys,) if key_positions else ()),
    )


def _example_states(states: list[RecurrentState]) -> Iterator[GraphInput]:
    if not states:
        return
    axes = ((0, "batch"),)
    yield GraphInput("new_lengths", torch.full((_EXAMPLE_BATCH,), 5, dtype=torch.int32), axes)
    for index, state in enumerate(states):
        yield GraphInput(f"{_PAST_STATE}{index}", torch.zeros(_EXAMPLE_BATCH, *state.shape), axes)


def _choose_path(model: PreTrainedModel, max_length: int) -> tuple[_Path, _Layers, ExitStack]:
    """Prepare the model for the first path that reproduces its logits for a few tokens.

    The model must run before it is traced: the rotary tables it makes then are constants of the graph, while tensors
    made during tracing are symbolic.
    """
    ids = torch.arange(8)[None] % model.config.get_text_config().vocab_size
    model.set_attn_implementation("eager")
    prepare_experts(model)
    with torch.no_grad():
        expected = model(input_ids=ids, use_cache=False).logits
    check_finite("logits", model, [expected])
    paths = [_Path("native", True), _Path("native", False)]
    if not any(depends_on_length(module) for module in rotary_modules(model)):
        paths = [_Path("fused", True), _Path("fused", False), *paths]

    def attempt(path: _Path, stack: ExitStack) -> tuple[float, _Layers]:
        stack.enter_context(_prepared(model, path, max_length))
        # Tables of positions are made here, not by the layer that is watched while it reads them first.
        _check_connections(model, ids, max_length)
        attention = ForwardPass(max_length=max_length)
        with watched_layers(model, attention.layers) as watch:
            actual, states = _probe(model, ids, attention)
        # A state is an input and an output of the graph, of which a shorter trace would have fewer.
        alike = None if states else watch.alike()
        return relative_difference(expected, actual), _Layers(attention.layers, states, alike)

    return choose_path("logits", paths, attempt)


def _probe(
    model: PreTrainedModel, ids: torch.Tensor, attention: ForwardPass
) -> tuple[torch.Tensor, list[RecurrentState]]:
    recurrent = RecurrentPass(isolated=attention.isolated)
    with attending(attention), carrying(recurrent):
        positions = torch.arange(ids.shape[1]).expand(len(ids), -1)
        logits: torch.Tensor = model(input_ids=ids, position_ids=positions, use_cache=False).logits
    return logits, recurrent.states


def _check_connections(model: PreTrainedModel, ids: torch.Tensor, max_length: int) -> None:
    """Refuse a model in which tokens are connected by anything but what was replaced.

    With attention, convolutions and recurrences over a single token, a token's logits must not depend on the tokens
    before it. Where they do, the model has attention or a state of its own, which the graph would lose between two
    chunks.
    """
    others = ids.clone()
    others[0, :-1] = ids[0, 1:]
    attention = ForwardPass(isolated=True, max_length=max_length)
    logits, states = _probe(model, torch.cat([ids, others]), attention)
    if not attention.layers and not states:
        raise UnsupportedModelError("its attention is code of its own, which cannot be replaced")
    if relative_difference(*logits[:, -1]) > TOLERANCE:
        raise UnsupportedModelError(
            "it carries a state along the text besides keys and values, which is neither a convolution nor a "
            "recurrence that is supported"
        )


@contextmanager
def _prepared(model: PreTrainedModel, path: _Path, max_length: int) -> Iterator[None]:
    model.set_attn_implementation(CAUSAL)
    with ExitStack() as stack:
        stack.enter_context(through_causal(model, max_length))
        stack.enter_context(recurrences_replaced(model))
        stack.enter_context(all_selected(model, max_length))
        stack.enter_context(untempered(model, max_length))
        if path.rotary == "fused":
            stack.enter_context(fused_rotary(model, max_length, announce))
        else:
            stack.enter_context(native_rotary(model))
            stack.enter_context(real_rotary(model, max_length))
        if path.substitute:
            stack.enter_context(single_operators(model))
        yield
