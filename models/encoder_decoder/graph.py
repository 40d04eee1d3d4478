"""Prepares an encoder-decoder for tracing as two graphs.

The encoder's outputs are the keys and values of every cross-attention. The decoder takes them as inputs, and has a
cache of its own tokens.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from triform.models.alike_layers import AlikeLayers, watched_layers
from triform.models.attention.causal import ForwardPass, LayerFacts, attending, traced_pass
from triform.models.attention.cross import ENCODER_DECODER, cross_attending
from triform.models.attention.cross_state import CrossAttentionState
from triform.models.attention.local_global import unchunked
from triform.models.attention.own import through_interface
from triform.models.attention.rotary import native_rotary
from triform.models.encoder_decoder.merged import merged_attention, merges_sources
from triform.models.encoder_decoder.positions import Positions, positions_from, uses_distances
from triform.models.encoder_decoder.reference import cache_name, reference_logits
from triform.models.encoder_decoder.streams import first_stream, predicts_streams
from triform.models.errors import UnsupportedModelError
from triform.models.patching import patched
from triform.models.paths import check_finite, choose_path, relative_difference
from triform.models.spec import GraphInput, GraphSpec
from triform.models.traceable.experts import prepare_experts
from triform.models.traceable.forgetting import forgetful
from triform.models.traceable.frame_lengths import whole_frame_lengths
from triform.models.traceable.frame_masks import traceable_frame_masks
from triform.models.traceable.own_experts import shares_experts, unlimited_experts
from triform.models.traceable.picking import pick_positions
from triform.models.traceable.substitutions import single_operators
from triform.models.traceable.token_blocks import blocks_of_any_number

# Output of the encoder, and input of the decoder.
ENCODER_MASK = "encoder_attention_mask"


@dataclass(frozen=True)
class EncoderInputs:
    """The inputs of an encoder, by the model's names.

    Attributes:
        examples: tensors of at least two rows, the last one padded, in the order of the graph's inputs.
        axes: the dynamic axes and their names.
    """

    examples: Mapping[str, torch.Tensor]
    axes: Mapping[str, tuple[tuple[int, str], ...]]


@dataclass(frozen=True)
class EncoderDecoderSpecs:
    """The graphs of an encoder-decoder.

    Attributes:
        encoder: outputs `cross_key_values.{i}.key` and `cross_key_values.{i}.value` of each layer and, if its inputs
            have a mask, `encoder_attention_mask`.
        decoder: takes input_ids, past_lengths, logits_positions and the encoder's outputs; outputs logits.
    """

    encoder: GraphSpec
    decoder: GraphSpec


@dataclass(frozen=True)
class _Found:
    """What a model does, found by running it.

    Attributes:
        state: what its encoder gave for the examples.
        attention: of the layers of its decoder.
        alike_in_encoder: layers of its encoder that compute the same with other weights.
        alike_in_decoder: those of its decoder.
    """

    state: CrossAttentionState
    attention: list[LayerFacts]
    alike_in_encoder: AlikeLayers | None
    alike_in_decoder: AlikeLayers | None


class _EncoderGraph(torch.nn.Module):
    """The module that is traced as the encoder.

    The model's decoder runs on one token, because its layers compute the keys and values; its other results are not
    used, so their operators are removed from the graph.
    """

    def __init__(self, model: PreTrainedModel, names: tuple[str, ...], positions: Positions) -> None:
        super().__init__()
        self.model = model
        self._names = names
        self._positions = positions

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run the encoder; returns keys and values of each layer in turn, then the mask if there is one."""
        state = collect(self.model, dict(zip(self._names, inputs, strict=True)), self._positions)
        mask = [] if state.padding is None else [state.padding.to(torch.int32)]
        layers = zip(state.keys, state.values, strict=True)
        return (*(part.contiguous() for layer in layers for part in layer), *mask)


class _DecoderGraph(torch.nn.Module):
    """The module that is traced as the decoder."""

    def __init__(
        self,
        model: PreTrainedModel,
        layers: list[LayerFacts],
        positions: Positions,
        names: list[str],
        alignment_heads: Sequence[tuple[int, int]],
    ) -> None:
        super().__init__()
        self.model = model
        self._layers = layers
        self._positions = positions
        self._names = names
        self._alignment_heads = alignment_heads
        self._logits_positions: torch.Tensor | None = None
        output_head(model).register_forward_pre_hook(self._pick)

    def _pick(self, _: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        hidden, positions = args[0], self._logits_positions
        if positions is None:
            return (hidden,)
        if hidden.dim() == 4:
            # Of one stream, (batch, 1, sequence, hidden_size).
            return (pick_positions(hidden[:, 0], positions)[:, None],)
        return (pick_positions(hidden, positions),)

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run one chunk of tokens; see `EncoderDecoderSpecs`. After tracing, `count_keys` computes `key_positions`."""
        values = dict(zip(self._names, inputs, strict=True))
        ids, past_lengths = values["input_ids"], values["past_lengths"]
        length = ids.shape[1]
        self._positions.queries = past_lengths[:, None].to(torch.int64) + torch.arange(length)
        self._positions.keys = values.get("key_positions", self._positions.keys)
        self._logits_positions = values["logits_positions"]
        state = _cross_state(values, self._alignment_heads)
        with attending(traced_pass(past_lengths, length, self._layers)):
            logits = decode(self.model, ids, self._positions.queries, state)
        self._logits_positions = None
        return (logits, torch.cat(state.weights, 1)) if state.weights else (logits,)


def _cross_state(values: Mapping[str, torch.Tensor], alignment_heads: Sequence[tuple[int, int]]) -> CrossAttentionState:
    """The encoder's outputs among the inputs of a decoder."""
    keys, tensors = (
        [value for name, value in values.items() if name.startswith("cross_key_values") and name.endswith(part)]
        for part in ("key", "value")
    )
    return CrossAttentionState(
        keys, tensors, values.get(ENCODER_MASK), collecting=False, alignment_heads=alignment_heads
    )


def output_head(model: Any) -> torch.nn.Module:
    """The module that turns hidden states into logits.

    Raises:
        UnsupportedModelError: there is none.
    """
    for module in (getattr(model.get_decoder(), "output_projection", None), model.get_output_embeddings()):
        if isinstance(module, torch.nn.Module):
            return module
    raise UnsupportedModelError("it has no language-model head")


def collect(model: PreTrainedModel, inputs: Mapping[str, torch.Tensor], positions: Positions) -> CrossAttentionState:
    """Compute the keys and values of all cross-attentions.

    Args:
        model: prepared with `positions`.
        inputs: of the encoder, by the model's names.
        positions: changed.
    """
    state = CrossAttentionState()
    batch = next(iter(inputs.values())).shape[0]
    token = torch.zeros(batch, 1, dtype=torch.int64)
    positions.queries, positions.keys = token, token[0]
    with cross_attending(state):
        model(**inputs, decoder_input_ids=token, use_cache=True, **_cache_argument(model, state))
    return state


def decode(
    model: PreTrainedModel, input_ids: torch.Tensor, positions: torch.Tensor, state: CrossAttentionState
) -> torch.Tensor:
    """Logits for decoder tokens, float (batch, sequence, vocab_size).

    Args:
        model: prepared, see `encoder_decoder_specs`.
        input_ids: int64 (batch, sequence).
        positions: int64 (batch, sequence).
        state: the encoder's outputs; not `collecting`.
    """
    key = state.keys[0]
    # In place of the encoder's output, of which the model reads only the shape.
    hidden = key.new_zeros(input_ids.shape[0], key.shape[2], _encoder_width(model))
    encoder_outputs = BaseModelOutput(last_hidden_state=hidden)
    # Attributes of the outputs of Moonshine's encoder, and of encoders with experts.
    encoder_outputs.attention_mask = encoder_outputs.router_logits = None
    position_ids = {"decoder_position_ids": positions} if _takes_positions(model) else {}
    with cross_attending(state):
        logits: torch.Tensor = model(
            encoder_outputs=encoder_outputs,
            decoder_input_ids=input_ids,
            use_cache=True,
            **_cache_argument(model, state),
            **position_ids,
        ).logits
    return logits


def _encoder_width(model: Any) -> int:
    """The size of the encoder's hidden states; 1 where the encoder does not say, because most decoders do not ask."""
    projection = getattr(model, "enc_to_dec_proj", None)
    if projection is not None:
        return int(projection.in_features)
    return int(getattr(getattr(model.get_encoder(), "config", None), "hidden_size", 1))


def _cache_argument(model: Any, state: CrossAttentionState) -> dict[str, Any]:
    """The state's cache, by the model's name for it."""
    return {cache_name(model): state.cache()}


def _takes_positions(model: Any) -> bool:
    if "decoder_position_ids" in inspect.signature(model.forward).parameters:
        return True
    # A model of two others passes arguments called decoder_… to its decoder.
    return isinstance(getattr(model.config, "decoder", None), PretrainedConfig) and (
        "position_ids" in inspect.signature(model.get_decoder().forward).parameters
    )


def encoder_decoder_specs(
    model: PreTrainedModel, source: EncoderInputs, max_length: int, alignment_heads: Sequence[tuple[int, int]] = ()
) -> tuple[EncoderDecoderSpecs, ExitStack]:
    """Prepare `model` for tracing as an encoder and a decoder.

    The model is changed in place; closing the returned stack restores what is shared with other models.

    Args:
        model: a transformers encoder-decoder with a language-model head, in float32, on CPU, in evaluation mode.
        source: the encoder's inputs.
        max_length: most tokens of an answer.
        alignment_heads: (layer, head) of cross-attentions, layers in order, whose weights become the decoder's second
            output `cross_attentions`, float (batch, heads, sequence, source).

    Raises:
        UnsupportedModelError: no way to trace it reproduces the model's own logits.
    """
    positions = Positions(torch.zeros(0), torch.zeros(0))
    found, stack = _choose_path(model, source, positions, max_length)
    state, layers = found.state, found.attention
    names = tuple(source.examples)
    encoder_outputs = _encoder_outputs(state)
    inputs = tuple(GraphInput(name, source.examples[name], source.axes.get(name, ())) for name in names)
    encoder = GraphSpec(
        "encoder",
        _EncoderGraph(model, names, positions),
        inputs,
        tuple(encoder_outputs),
        (),
        None,
        alike=found.alike_in_encoder,
    )
    examples = _decoder_inputs(model, encoder_outputs)
    graph = _DecoderGraph(model, layers, positions, [item.name for item in examples], alignment_heads)
    outputs = ("logits", "cross_attentions") if alignment_heads else ("logits",)
    decoder = GraphSpec(
        "decoder",
        graph,
        examples,
        outputs,
        tuple(layer.cache for layer in layers),
        max_length,
        # Layers whose weights of attention are an output differ from those that were watched.
        alike=None if alignment_heads else found.alike_in_decoder,
    )
    return EncoderDecoderSpecs(encoder, decoder), stack


def _encoder_outputs(state: CrossAttentionState) -> dict[str, torch.Tensor]:
    """The outputs of the encoder graph, by name and in order."""
    outputs: dict[str, torch.Tensor] = {}
    for index, (key, value) in enumerate(zip(state.keys, state.values, strict=True)):
        outputs |= {f"cross_key_values.{index}.key": key, f"cross_key_values.{index}.value": value}
    return outputs if state.padding is None else {**outputs, ENCODER_MASK: state.padding.to(torch.int32)}


def _decoder_inputs(model: Any, encoder_outputs: Mapping[str, torch.Tensor]) -> tuple[GraphInput, ...]:
    # More rows than the encoder has, so that tracing cannot take the two axes for one.
    batch, length, num_logits, total = 2 * len(next(iter(encoder_outputs.values()))), 5, 3, 7
    inputs = [
        GraphInput("input_ids", torch.ones(batch, length, dtype=torch.int64), ((0, "batch"), (1, "sequence"))),
        GraphInput("past_lengths", torch.zeros(batch, dtype=torch.int32), ((0, "batch"),)),
        GraphInput(
            "logits_positions", torch.zeros(batch, num_logits, dtype=torch.int64), ((0, "batch"), (1, "num_logits"))
        ),
    ]
    if uses_distances(model.get_decoder()) or predicts_streams(model) or merges_sources(model):
        inputs.append(GraphInput("key_positions", torch.arange(total), ((0, "total"),)))
    for name, tensor in encoder_outputs.items():
        inputs.append(GraphInput(name, tensor, ((0, "sources"), (1 if name == ENCODER_MASK else 2, "source"))))
    return tuple(inputs)


def _choose_path(
    model: PreTrainedModel, source: EncoderInputs, positions: Positions, max_length: int
) -> tuple[_Found, ExitStack]:
    """Prepare the model for the first path that reproduces its logits for a few tokens."""
    batch = len(next(iter(source.examples.values())))
    vocabulary = model.config.get_text_config(decoder=True).vocab_size
    ids = torch.randint(3, vocabulary, (batch, 6), generator=torch.Generator().manual_seed(0))
    expected = reference_logits(model, source.examples, ids)
    check_finite("logits", model, [expected])
    if shares_experts(model):
        raise UnsupportedModelError(
            "its experts take a limited number of the tokens of a batch, so that what it writes depends on how many "
            "tokens are run together"
        )

    prepare_experts(model)

    def attempt(substitute: bool, stack: ExitStack) -> tuple[float, _Found]:
        stack.enter_context(_prepared(model, positions, max_length, substitute, source))
        with attending(ForwardPass()) as forward_pass:
            with watched_layers(model.get_encoder()) as encoder:
                state = collect(model, source.examples, positions)
            positions.keys = torch.arange(ids.shape[1])
            positions.queries = positions.keys.expand(ids.shape)
            collected = CrossAttentionState(state.keys, state.values, state.padding, collecting=False)
            with watched_layers(model.get_decoder(), forward_pass.layers) as decoder:
                actual = decode(model, ids, positions.queries, collected)
        if not forward_pass.layers:
            raise UnsupportedModelError("its decoder's attention is code of its own, which cannot be replaced")
        found = _Found(state, forward_pass.layers, encoder.alike(), decoder.alike())
        return relative_difference(expected, actual), found

    _, found, stack = choose_path("logits", (True, False), attempt)
    return found, stack


@contextmanager
def _prepared(
    model: Any, positions: Positions, max_length: int, substitute: bool, source: EncoderInputs
) -> Iterator[None]:
    def run(ids: torch.Tensor) -> None:
        row = {name: tensor[:1] for name, tensor in source.examples.items()}
        model(**row, decoder_input_ids=ids, use_cache=False)

    model.set_attn_implementation("eager")
    with ExitStack() as stack:
        # First, while the model still runs as it is: this runs it to get its position embeddings.
        stack.enter_context(positions_from(model.get_decoder(), positions, max_length, run))
        model.set_attn_implementation(ENCODER_DECODER)
        stack.enter_context(patched(_without_cache(model.get_encoder())))
        stack.enter_context(through_interface(model))
        stack.enter_context(first_stream(model, positions, max_length))
        stack.enter_context(merged_attention(model, positions))
        stack.enter_context(unchunked(model))
        stack.enter_context(traceable_frame_masks(model))
        stack.enter_context(whole_frame_lengths(model))
        stack.enter_context(forgetful(model))
        stack.enter_context(blocks_of_any_number(model))
        stack.enter_context(unlimited_experts(model.get_decoder()))
        stack.enter_context(native_rotary(model))
        if substitute:
            stack.enter_context(single_operators(model))
        yield


def _without_cache(encoder: Any) -> Iterator[tuple[Any, str, Callable[..., Any]]]:
    """A forward that does not hear of the cache, which is the decoder's: some models pass the wish for one on."""
    forward = encoder.forward
    if "use_cache" not in inspect.signature(forward).parameters:
        return

    @wraps(forward)
    def without(*arguments: Any, use_cache: bool | None = None, **named: Any) -> Any:
        return forward(*arguments, **named)

    yield encoder, "forward", without
