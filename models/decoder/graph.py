"""The decoder form: a causal language model as one graph for prefill, continuation and single steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from triform.models.attention.causal import IMPLEMENTATION, LayerFacts, Step, announce, attending
from triform.models.attention.rotary import depends_on_length, fused_rotary, native_rotary, rotary_modules
from triform.models.errors import UnsupportedModelError
from triform.models.paths import choose_path, relative_difference
from triform.models.spec import GraphInput, GraphSpec
from triform.models.traceable.substitutions import single_operators


@dataclass(frozen=True)
class _Path:
    """One way to trace a model; tried in order of speed."""

    rotary: str
    substitute: bool


class DecoderGraph(torch.nn.Module):
    """What is traced: token ids and cache in, logits and cache out."""

    def __init__(self, model: PreTrainedModel, layers: list[LayerFacts]) -> None:
        super().__init__()
        self.model = model
        self._layers = layers
        self._logits_positions: torch.Tensor | None = None
        model.get_output_embeddings().register_forward_pre_hook(self._pick_positions)

    def _pick_positions(self, _: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        hidden, positions = args[0], self._logits_positions
        if positions is None:
            return (hidden,)
        picked = torch.onnx.ops.symbolic(
            "GatherND",
            (hidden, positions[..., None]),
            {"batch_dims": 1},
            dtype=hidden.dtype,
            shape=(*positions.shape, hidden.shape[-1]),
        )
        return (picked,)

    def forward(
        self, input_ids: torch.Tensor, past_lengths: torch.Tensor, logits_positions: torch.Tensor
    ) -> torch.Tensor:
        """Run one chunk of tokens. The finished graph has each layer's cache as further inputs and outputs.

        Args:
            input_ids: int64 (batch, sequence); rows shorter than the longest are padded on the right with any id.
            past_lengths: int32 (batch,), tokens each row already has in its cache.
            logits_positions: int64 (batch, num_logits), which positions of this chunk get logits.

        Returns:
            logits float (batch, num_logits, vocab_size).
        """
        length = input_ids.shape[1]
        seqlens_k = past_lengths + (length - 1)
        total = (seqlens_k.amax(0, keepdim=True) + 1).to(torch.int32)
        position_ids = past_lengths[:, None].to(torch.int64) + torch.arange(length)
        self._logits_positions = logits_positions
        with attending(Step(seqlens_k.to(torch.int32), total, layers=self._layers)):
            logits: torch.Tensor = self.model(input_ids=input_ids, position_ids=position_ids, use_cache=False).logits
        self._logits_positions = None
        return logits


def decoder_spec(model: PreTrainedModel, max_length: int) -> tuple[GraphSpec, ExitStack]:
    """Prepare `model` for tracing as a decoder.

    The model is changed in place; closing the returned stack restores what is shared with other models.

    Args:
        model: a transformers causal language model in float32, on CPU, in evaluation mode.
        max_length: most positions the graph must reach.

    Raises:
        UnsupportedModelError: no way to trace it gives the model's own logits.
    """
    if model.get_output_embeddings() is None:
        raise UnsupportedModelError("it has no language-model head")
    path, layers, stack = _choose_path(model, max_length)
    caches = tuple(layer.cache for layer in layers)
    example = _example_inputs()
    notes = (
        ("attention", "com.microsoft::GroupQueryAttention"),
        ("rotary", path.rotary if rotary_modules(model) else "none"),
    )
    graph = GraphSpec("decoder", DecoderGraph(model, layers), example, ("logits",), caches, max_length, notes)
    return graph, stack


def _example_inputs() -> tuple[GraphInput, ...]:
    batch, length, num_logits = 2, 5, 3
    return (
        GraphInput("input_ids", torch.ones(batch, length, dtype=torch.int64), ((0, "batch"), (1, "sequence"))),
        GraphInput("past_lengths", torch.zeros(batch, dtype=torch.int32), ((0, "batch"),)),
        GraphInput(
            "logits_positions", torch.zeros(batch, num_logits, dtype=torch.int64), ((0, "batch"), (1, "num_logits"))
        ),
    )


def _choose_path(model: PreTrainedModel, max_length: int) -> tuple[_Path, list[LayerFacts], ExitStack]:
    """Take the first path that reproduces the model's own logits on a few tokens, and stay prepared for it.

    The probe must run before tracing and under the same preparation: tables it makes are constants, while anything
    made during tracing is symbolic.
    """
    ids = torch.arange(8)[None] % model.config.get_text_config().vocab_size
    model.set_attn_implementation("eager")
    if hasattr(model, "set_experts_implementation"):
        # The one way to route tokens to experts that is neither a loop over data nor a custom operator.
        model.set_experts_implementation("batched_mm")
    with torch.no_grad():
        expected = model(input_ids=ids, use_cache=False).logits
    varying = any(depends_on_length(module) for module in rotary_modules(model))
    paths = [_Path("native", True), _Path("native", False)]
    if not varying:
        paths = [_Path("fused", True), _Path("fused", False), *paths]

    def attempt(path: _Path, stack: ExitStack) -> tuple[float, list[LayerFacts]]:
        stack.enter_context(_prepared(model, path, max_length))
        actual, layers = _probe(model, ids)
        return relative_difference(expected, actual), layers

    return choose_path("logits", paths, attempt)


def _probe(model: PreTrainedModel, ids: torch.Tensor) -> tuple[torch.Tensor, list[LayerFacts]]:
    with attending(Step()) as step:
        positions = torch.arange(ids.shape[1])[None]
        logits: torch.Tensor = model(input_ids=ids, position_ids=positions, use_cache=False).logits
    return logits, step.layers


@contextmanager
def _prepared(model: PreTrainedModel, path: _Path, max_length: int) -> Iterator[None]:
    model.set_attn_implementation(IMPLEMENTATION)
    with ExitStack() as stack:
        if path.rotary == "fused":
            stack.enter_context(fused_rotary(model, max_length, announce))
        else:
            stack.enter_context(native_rotary(model))
        if path.substitute:
            stack.enter_context(single_operators(model))
        yield
