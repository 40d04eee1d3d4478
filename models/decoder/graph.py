"""Prepares a causal language model for tracing as one graph, for prefill, chunks and single steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from triform.models.attention.causal import CAUSAL, ForwardPass, LayerFacts, announce, attending, traced_pass
from triform.models.attention.own_causal import has_linear_biases, through_causal
from triform.models.attention.rotary import depends_on_length, fused_rotary, native_rotary, rotary_modules
from triform.models.errors import UnsupportedModelError
from triform.models.paths import TOLERANCE, choose_path, relative_difference
from triform.models.spec import GraphInput, GraphSpec
from triform.models.traceable.experts import batch_experts
from triform.models.traceable.picking import pick_positions
from triform.models.traceable.substitutions import single_operators


@dataclass(frozen=True)
class _Path:
    """One way to trace a model; the fastest is tried first.

    Attributes:
        rotary: "fused" or "native", see `models/attention/rotary.py`.
        substitute: whether norms and activations become single operators.
    """

    rotary: str
    substitute: bool


class DecoderGraph(torch.nn.Module):
    """The module that is traced: from token ids to logits. The cache is added after tracing."""

    def __init__(self, model: PreTrainedModel, layers: list[LayerFacts]) -> None:
        super().__init__()
        self.model = model
        self._layers = layers
        self._logits_positions: torch.Tensor | None = None
        model.get_output_embeddings().register_forward_pre_hook(self._pick_positions)

    def _pick_positions(self, _: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        hidden, positions = args[0], self._logits_positions
        return (hidden if positions is None else pick_positions(hidden, positions),)

    def forward(
        self,
        input_ids: torch.Tensor,
        past_lengths: torch.Tensor,
        logits_positions: torch.Tensor,
        key_positions: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Run one chunk of tokens.

        Args:
            input_ids: int64 (batch, sequence); rows shorter than the longest are padded on the right with any id.
            past_lengths: int32 (batch,), tokens that each row has in its cache.
            logits_positions: int64 (batch, num_logits), the positions of this chunk to return logits for.
            key_positions: int64 (total,), 0, 1, … for the keys of the longest row; read by models with linear biases.
                In the finished graph it is computed, see `export/graph/cross_attention.py`.

        Returns:
            logits float (batch, num_logits, vocab_size).
        """
        length = input_ids.shape[1]
        position_ids = past_lengths[:, None].to(torch.int64) + torch.arange(length)
        self._logits_positions = logits_positions
        with attending(traced_pass(past_lengths, length, self._layers, key_positions)):
            logits: torch.Tensor = self.model(input_ids=input_ids, position_ids=position_ids, use_cache=False).logits
        self._logits_positions = None
        return logits


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
    caches = tuple(layer.cache for layer in layers)
    example = _example_inputs(has_linear_biases(model))
    notes = (
        ("attention", "com.microsoft::GroupQueryAttention"),
        ("rotary", path.rotary if rotary_modules(model) else "none"),
    )
    graph = GraphSpec("decoder", DecoderGraph(model, layers), example, ("logits",), caches, max_length, notes)
    return graph, stack


def _example_inputs(linear_biases: bool) -> tuple[GraphInput, ...]:
    batch, length, num_logits, total = 2, 5, 3, 7
    keys = GraphInput("key_positions", torch.arange(total), ((0, "total"),))
    return (
        GraphInput("input_ids", torch.ones(batch, length, dtype=torch.int64), ((0, "batch"), (1, "sequence"))),
        GraphInput("past_lengths", torch.zeros(batch, dtype=torch.int32), ((0, "batch"),)),
        GraphInput(
            "logits_positions", torch.zeros(batch, num_logits, dtype=torch.int64), ((0, "batch"), (1, "num_logits"))
        ),
        *((keys,) if linear_biases else ()),
    )


def _choose_path(model: PreTrainedModel, max_length: int) -> tuple[_Path, list[LayerFacts], ExitStack]:
    """Prepare the model for the first path that reproduces its logits for a few tokens.

    The model must run before it is traced: the rotary tables it makes then are constants of the graph, while tensors
    made during tracing are symbolic.
    """
    ids = torch.arange(8)[None] % model.config.get_text_config().vocab_size
    model.set_attn_implementation("eager")
    batch_experts(model)
    with torch.no_grad():
        expected = model(input_ids=ids, use_cache=False).logits
    paths = [_Path("native", True), _Path("native", False)]
    if not any(depends_on_length(module) for module in rotary_modules(model)):
        paths = [_Path("fused", True), _Path("fused", False), *paths]

    def attempt(path: _Path, stack: ExitStack) -> tuple[float, list[LayerFacts]]:
        stack.enter_context(_prepared(model, path, max_length))
        actual, layers = _probe(model, ids)
        _check_connections(model, ids, layers)
        return relative_difference(expected, actual), layers

    return choose_path("logits", paths, attempt)


def _probe(model: PreTrainedModel, ids: torch.Tensor) -> tuple[torch.Tensor, list[LayerFacts]]:
    with attending(ForwardPass()) as state:
        positions = torch.arange(ids.shape[1])[None]
        logits: torch.Tensor = model(input_ids=ids, position_ids=positions, use_cache=False).logits
    return logits, state.layers


def _check_connections(model: PreTrainedModel, ids: torch.Tensor, layers: list[LayerFacts]) -> None:
    """Refuse a model in which tokens are connected by anything but the attention that was replaced.

    With attention to itself only, a token's logits must not depend on the tokens before it. Where they do, the model
    has attention of its own, or a state along the text, which the graph would lose between two chunks.
    """
    if not layers:
        raise UnsupportedModelError("its attention is code of its own, which cannot be replaced")
    others = ids.clone()
    others[0, :-1] = ids[0, 1:]
    logits = []
    for row in (ids, others):
        with attending(ForwardPass(isolated=True)):
            positions = torch.arange(ids.shape[1])[None]
            output = model(input_ids=row, position_ids=positions, use_cache=False)
        logits.append(output.logits[0, -1])
    if relative_difference(*logits) > TOLERANCE:
        raise UnsupportedModelError(
            "it carries a state along the text besides keys and values, such as a convolution's or a recurrence's, "
            "which is not supported"
        )


@contextmanager
def _prepared(model: PreTrainedModel, path: _Path, max_length: int) -> Iterator[None]:
    model.set_attn_implementation(CAUSAL)
    with ExitStack() as stack:
        stack.enter_context(through_causal(model, max_length))
        if path.rotary == "fused":
            stack.enter_context(fused_rotary(model, max_length, announce))
        else:
            stack.enter_context(native_rotary(model))
        if path.substitute:
            stack.enter_context(single_operators(model))
        yield
