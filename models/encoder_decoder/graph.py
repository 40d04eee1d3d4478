"""The encoder-decoder form, as two graphs.

The encoder ends in the keys and values of every cross-attention; the decoder reads them, and keeps a cache of its own
tokens.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from triform.models.attention.causal import LayerFacts, Step, attending
from triform.models.attention.cross import IMPLEMENTATION, exchanging
from triform.models.attention.exchange import Exchange
from triform.models.attention.own import through_interface
from triform.models.attention.rotary import native_rotary
from triform.models.encoder_decoder.positions import Positions, placed, uses_distances
from triform.models.errors import UnsupportedModelError
from triform.models.paths import choose_path, relative_difference
from triform.models.spec import GraphInput, GraphSpec
from triform.models.traceable.frame_lengths import whole_frame_lengths
from triform.models.traceable.frame_masks import traceable_frame_masks
from triform.models.traceable.substitutions import single_operators
from triform.models.traceable.token_blocks import blocks_of_any_number

PADDING = "encoder_attention_mask"


@dataclass(frozen=True)
class Source:
    """What an encoder reads: its inputs by the model's names, with examples of at least two rows, the last one padded.

    Attributes:
        examples: by name, in the order the graph takes them.
        axes: by name, the dynamic axes.
    """

    examples: Mapping[str, torch.Tensor]
    axes: Mapping[str, tuple[tuple[int, str], ...]]


@dataclass(frozen=True)
class Pair:
    """The two graphs, and what is known of them.

    Attributes:
        encoder: takes what the source names; gives `cross_key_values.{i}.key`, `cross_key_values.{i}.value` and, where
            rows can be padded, `encoder_attention_mask`.
        decoder: takes input_ids, past_lengths, logits_positions and what the encoder gives; gives logits.
        heads: of each cross-attention: (num_attention_heads, head_dim).
        padded: whether the encoder gives a mask.
    """

    encoder: GraphSpec
    decoder: GraphSpec
    heads: tuple[tuple[int, int], ...]
    padded: bool


class _Encoder(torch.nn.Module):
    """Traced as the encoder; the model's decoder runs on one token to ask for its keys and values, and is dropped."""

    def __init__(self, model: PreTrainedModel, names: tuple[str, ...], places: Positions) -> None:
        super().__init__()
        self.model = model
        self._names = names
        self._places = places

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run the encoder; gives keys and values of each layer in turn, then the mask where there is one."""
        exchange = collect(self.model, dict(zip(self._names, inputs, strict=True)), self._places)
        mask = [] if exchange.padding is None else [exchange.padding.to(torch.int32)]
        layers = zip(exchange.keys, exchange.values, strict=True)
        return (*(part.contiguous() for layer in layers for part in layer), *mask)


class _Decoder(torch.nn.Module):
    """Traced as the decoder."""

    def __init__(
        self,
        model: PreTrainedModel,
        layers: list[LayerFacts],
        places: Positions,
        names: list[str],
        watched: Sequence[tuple[int, int]],
    ) -> None:
        super().__init__()
        self._watched = watched
        self.model = model
        self._layers = layers
        self._places = places
        self._names = names
        self._logits_positions: torch.Tensor | None = None
        output_head(model).register_forward_pre_hook(self._pick)

    def _pick(self, _: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        hidden, positions = args[0], self._logits_positions
        if positions is None:
            return (hidden,)
        return (
            torch.onnx.ops.symbolic(
                "GatherND",
                (hidden, positions[..., None]),
                {"batch_dims": 1},
                dtype=hidden.dtype,
                shape=(*positions.shape, hidden.shape[-1]),
            ),
        )

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run one chunk of tokens; see `Pair.decoder`. `key_positions` becomes part of the graph after tracing."""
        given = dict(zip(self._names, inputs, strict=True))
        length = given["input_ids"].shape[1]
        seqlens_k = given["past_lengths"] + (length - 1)
        total = (seqlens_k.amax(0, keepdim=True) + 1).to(torch.int32)
        self._places.queries = given["past_lengths"][:, None].to(torch.int64) + torch.arange(length)
        self._places.keys = given.get("key_positions", self._places.keys)
        self._logits_positions = given["logits_positions"]
        exchange = _given_exchange(given, self._watched)
        with attending(Step(seqlens_k.to(torch.int32), total, layers=self._layers)):
            logits = decode(self.model, given["input_ids"], self._places.queries, exchange)
        self._logits_positions = None
        return (logits, torch.cat(exchange.weights, 1)) if exchange.weights else (logits,)


def _given_exchange(given: Mapping[str, torch.Tensor], watched: Sequence[tuple[int, int]]) -> Exchange:
    parts = {
        part: [tensor for name, tensor in given.items() if name.startswith("cross_key_values") and name.endswith(part)]
        for part in ("key", "value")
    }
    return Exchange(parts["key"], parts["value"], given.get(PADDING), collecting=False, watched=watched)


def output_head(model: Any) -> torch.nn.Module:
    """The module that turns hidden states into logits.

    Raises:
        UnsupportedModelError: there is none.
    """
    for module in (getattr(model.get_decoder(), "output_projection", None), model.get_output_embeddings()):
        if isinstance(module, torch.nn.Module):
            return module
    raise UnsupportedModelError("it has no language-model head")


def collect(model: PreTrainedModel, inputs: Mapping[str, torch.Tensor], places: Positions) -> Exchange:
    """What the encoder gives the decoder for `inputs`, by the model's names; the model is prepared to use `places`."""
    exchange = Exchange()
    batch = next(iter(inputs.values())).shape[0]
    token = torch.zeros(batch, 1, dtype=torch.int64)
    places.queries, places.keys = token, token[0]
    with exchanging(exchange):
        model(**inputs, decoder_input_ids=token, use_cache=True, **_cache_argument(model, exchange))
    return exchange


def decode(
    model: PreTrainedModel, input_ids: torch.Tensor, positions: torch.Tensor, exchange: Exchange
) -> torch.Tensor:
    """Logits for decoder tokens, given what the encoder gave.

    Args:
        model: prepared, see `encoder_decoder_specs`.
        input_ids: int64 (batch, sequence).
        positions: int64 (batch, sequence).
        exchange: giving.
    """
    key = exchange.keys[0]
    # Stands in for the encoder's output; only its shape is ever looked at.
    projection = getattr(model, "enc_to_dec_proj", None)
    hidden = key.new_zeros(input_ids.shape[0], key.shape[2], 1 if projection is None else projection.in_features)
    stand_in = BaseModelOutput(last_hidden_state=hidden)
    # Moonshine's encoder gives one.
    stand_in.attention_mask = None
    places = {"decoder_position_ids": positions} if _takes_positions(model) else {}
    with exchanging(exchange):
        logits: torch.Tensor = model(
            encoder_outputs=stand_in,
            decoder_input_ids=input_ids,
            use_cache=True,
            **_cache_argument(model, exchange),
            **places,
        ).logits
    return logits


def _cache_argument(model: Any, exchange: Exchange) -> dict[str, Any]:
    """The exchange's cache by the name that the model has for it: transformers has had two."""
    name = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
    return {name: exchange.cache()}


def _takes_positions(model: Any) -> bool:
    own = inspect.signature(model.forward).parameters
    if "decoder_position_ids" in own:
        return True
    # Two models put together: the whole hands on what is called decoder_….
    return isinstance(getattr(model.config, "decoder", None), PretrainedConfig) and (
        "position_ids" in inspect.signature(model.get_decoder().forward).parameters
    )


def encoder_decoder_specs(
    model: PreTrainedModel, source: Source, max_length: int, watched: Sequence[tuple[int, int]] = ()
) -> tuple[Pair, ExitStack]:
    """Prepare `model` for tracing as an encoder and a decoder.

    The model is changed in place; closing the returned stack restores what is shared with other models.

    Args:
        model: a transformers encoder-decoder with a language-model head, in float32, on CPU, in evaluation mode.
        source: what its encoder reads.
        max_length: most tokens the decoder must reach.
        watched: (layer, head) of the cross-attentions, layers in order, whose weights the decoder gives as its second
            output `cross_attentions`, float (batch, heads, sequence, source).

    Raises:
        UnsupportedModelError: no way to trace it gives the model's own logits.
    """
    places = Positions(torch.zeros(0), torch.zeros(0))
    exchange, layers, stack = _choose_path(model, source, places, max_length)
    names = tuple(source.examples)
    given = _given(exchange)
    inputs = tuple(GraphInput(name, source.examples[name], source.axes.get(name, ())) for name in names)
    encoder = GraphSpec("encoder", _Encoder(model, names, places), inputs, tuple(given), (), None)
    examples = _decoder_inputs(model, given)
    graph = _Decoder(model, layers, places, [item.name for item in examples], watched)
    outputs = ("logits", "cross_attentions") if watched else ("logits",)
    decoder = GraphSpec("decoder", graph, examples, outputs, tuple(layer.cache for layer in layers), max_length)
    heads = tuple((key.shape[1], key.shape[3]) for key in exchange.keys)
    return Pair(encoder, decoder, heads, exchange.padding is not None), stack


def reference_logits(
    model: PreTrainedModel, inputs: Mapping[str, torch.Tensor], decoder_input_ids: torch.Tensor
) -> torch.Tensor:
    """What the model itself, with transformers' own attention, says: float (batch, sequence, vocab_size)."""
    model.set_attn_implementation("eager")
    with torch.no_grad():
        logits: torch.Tensor = model(**inputs, decoder_input_ids=decoder_input_ids, use_cache=False).logits
    return logits


def cross_names(layer: int) -> tuple[str, str]:
    """What the keys and the values of a layer's cross-attention are called."""
    return f"cross_key_values.{layer}.key", f"cross_key_values.{layer}.value"


def _given(exchange: Exchange) -> dict[str, torch.Tensor]:
    """What the encoder graph gives, by name and in order."""
    named: dict[str, torch.Tensor] = {}
    for index, layer in enumerate(zip(exchange.keys, exchange.values, strict=True)):
        named |= dict(zip(cross_names(index), layer, strict=True))
    return named if exchange.padding is None else {**named, PADDING: exchange.padding.to(torch.int32)}


def _decoder_inputs(model: Any, given: Mapping[str, torch.Tensor]) -> tuple[GraphInput, ...]:
    # More rows than the encoder had: nothing may take one number for the other.
    batch, length, num_logits, total = 2 * len(next(iter(given.values()))), 5, 3, 7
    whole = torch.int64
    inputs = [
        GraphInput("input_ids", torch.ones(batch, length, dtype=whole), ((0, "batch"), (1, "sequence"))),
        GraphInput("past_lengths", torch.zeros(batch, dtype=torch.int32), ((0, "batch"),)),
        GraphInput("logits_positions", torch.zeros(batch, num_logits, dtype=whole), ((0, "batch"), (1, "num_logits"))),
    ]
    if uses_distances(model.get_decoder()):
        inputs.append(GraphInput("key_positions", torch.arange(total), ((0, "total"),)))
    for name, tensor in given.items():
        inputs.append(GraphInput(name, tensor, ((0, "sources"), (1 if name == PADDING else 2, "source"))))
    return tuple(inputs)


def _choose_path(
    model: PreTrainedModel, source: Source, places: Positions, max_length: int
) -> tuple[Exchange, list[LayerFacts], ExitStack]:
    """Take the first path that reproduces the model's own logits on a few tokens, and stay prepared for it."""
    batch = len(next(iter(source.examples.values())))
    vocabulary = model.config.get_text_config(decoder=True).vocab_size
    ids = torch.randint(3, vocabulary, (batch, 6), generator=torch.Generator().manual_seed(0))
    expected = reference_logits(model, source.examples, ids)

    def attempt(substitute: bool, stack: ExitStack) -> tuple[float, tuple[Exchange, list[LayerFacts]]]:
        stack.enter_context(_prepared(model, places, max_length, substitute, source))
        with attending(Step()) as step:
            exchange = collect(model, source.examples, places)
            places.keys = torch.arange(ids.shape[1])
            places.queries = places.keys.expand(ids.shape)
            given = Exchange(exchange.keys, exchange.values, exchange.padding, collecting=False)
            actual = decode(model, ids, places.queries, given)
        return relative_difference(expected, actual), (exchange, step.layers)

    _, (exchange, layers), stack = choose_path("logits", (True, False), attempt)
    return exchange, layers, stack


@contextmanager
def _prepared(model: Any, places: Positions, max_length: int, substitute: bool, source: Source) -> Iterator[None]:
    def run(ids: torch.Tensor) -> None:
        row = {name: tensor[:1] for name, tensor in source.examples.items()}
        model(**row, decoder_input_ids=ids, use_cache=False)

    with ExitStack() as stack:
        # While the model still computes by itself: this asks it what its positions are.
        stack.enter_context(placed(model.get_decoder(), places, max_length, run))
        model.set_attn_implementation(IMPLEMENTATION)
        stack.enter_context(through_interface(model))
        stack.enter_context(traceable_frame_masks(model))
        stack.enter_context(whole_frame_lengths(model))
        stack.enter_context(blocks_of_any_number(model))
        stack.enter_context(native_rotary(model))
        if substitute:
            stack.enter_context(single_operators(model))
        yield
