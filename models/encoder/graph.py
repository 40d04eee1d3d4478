"""Prepares an encoder of texts or images for tracing as one graph."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from triform.models.alike_layers import AlikeLayers, watched_layers
from triform.models.attention.bidirectional import WITH_BIAS, WITH_PADDING_MASK, rotating
from triform.models.attention.local_global import unchunked
from triform.models.attention.rotary import depends_on_length, fused_rotary, native_rotary, rotary_modules
from triform.models.attention.whole_blocks import whole_blocks
from triform.models.encoder.probing import difference_at_tokens, probe_inputs, reads_padding, tokens
from triform.models.errors import UnsupportedModelError
from triform.models.patching import values_unchecked
from triform.models.paths import check_finite, choose_path
from triform.models.recurrent.passes import RecurrentPass, carrying
from triform.models.recurrent.replacing import recurrences_replaced
from triform.models.spec import EncoderTask, GraphInput, GraphSpec, RecurrentState
from triform.models.traceable.any_length import any_length
from triform.models.traceable.classified_end import traceable_end
from triform.models.traceable.convolutions import as_products
from triform.models.traceable.experts import prepare_experts
from triform.models.traceable.forgetting import forgetful
from triform.models.traceable.frame_lengths import whole_frame_lengths
from triform.models.traceable.frame_masks import traceable_frame_masks
from triform.models.traceable.pooled_lengths import pooled_by_index
from triform.models.traceable.substitutions import single_operators


class EncoderGraph(torch.nn.Module):
    """The module that is traced: from the task's inputs to its outputs."""

    def __init__(self, model: PreTrainedModel, task: EncoderTask) -> None:
        super().__init__()
        self.model = model
        self._task = task
        self._positions: torch.Tensor | None = None
        self._states: list[RecurrentState] = []
        self._hook: RemovableHandle | None = None

    def pick_before_head(self) -> None:
        """Compute the head at the picked positions only, if the task picks positions and the model tells its head."""
        head = self.model.get_output_embeddings() if self._task.picks_positions else None
        if head is not None:
            self._hook = head.register_forward_pre_hook(self._pick)

    def release(self) -> None:
        """Restore the model's head; call once, when the graph runs no more."""
        if self._hook is not None:
            self._hook.remove()

    def _pick(self, _: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        hidden, positions = arguments[0], self._positions
        self._positions = None
        return (hidden if positions is None else _picked(hidden, positions),)

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run the model.

        Args:
            inputs: those of `EncoderTask.names`: input_ids, attention_mask and token_type_ids int64 (batch, sequence);
                those of images or audio; those of `beside`; and, if the task picks
                positions, logits_positions int64 (batch, num_logits).

        Returns:
            the task's outputs, in order.
        """
        values = dict(zip(self._task.names, inputs, strict=True))
        arguments: dict[str, Any] = {name: values[name] for name in self._task.inputs}
        self._positions = inputs[-1] if self._task.picks_positions else None
        function = self.model if self._task.call is None else getattr(self.model, self._task.call)
        if "use_cache" in inspect.signature(function if self._task.call else function.forward).parameters:
            # The length of a cache with a window would be fixed by tracing.
            arguments["use_cache"] = False
        with carrying(self._recurrent_pass(inputs[0])) as recurrent:
            result = function(**arguments, **self._task.arguments)
        self._states = recurrent.states or self._states
        results = {"result": result} if isinstance(result, torch.Tensor) else dict(result)
        if self._positions is not None:
            # Not picked yet: some models, such as MobileBERT, multiply by the head's weights without calling it.
            if "logits" not in results:
                raise UnsupportedModelError("it has no language-model head")
            results["logits"] = _picked(results["logits"], self._positions)
            self._positions = None
        return _distinct(self._task.outputs({**_full_mask(values), **results, **values}).values())

    def _recurrent_pass(self, inputs: torch.Tensor) -> RecurrentPass:
        """For recurrences over a whole text: padding comes after it, so that no token sees what padding leaves."""
        if not self._states or not torch.compiler.is_exporting():
            return RecurrentPass()
        batch, length = inputs.shape
        past = [inputs.new_zeros((batch, *state.shape), dtype=torch.float32) for state in self._states]
        return RecurrentPass(past=past, new_lengths=torch.full((batch,), length, dtype=torch.int32))


def _picked(values: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """From (batch, sequence, width), those at `positions`, int64 (batch, num_logits)."""
    return torch.gather(values, 1, positions[..., None].expand(*positions.shape, values.shape[-1]))


def _full_mask(inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The mask of rows without padding."""
    return {"attention_mask": torch.ones_like(inputs["input_ids"])} if "input_ids" in inputs else {}


def _distinct(outputs: Iterable[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Copy a tensor that occurs twice, because each output of a graph must be a value of its own."""
    seen: set[int] = set()
    distinct = []
    for tensor in outputs:
        distinct.append(tensor.clone() if id(tensor) in seen else tensor)
        seen.add(id(tensor))
    return tuple(distinct)


def encoder_spec(
    model: PreTrainedModel, task: EncoderTask, name: str, max_length: int | None
) -> tuple[GraphSpec, ExitStack]:
    """Prepare `model` for tracing as an encoder.

    The model is changed in place; closing the returned stack restores what is shared with other models.

    Args:
        model: a transformers model in float32, on CPU, in evaluation mode.
        task: what to trace.
        name: of the graph.
        max_length: most tokens of a row; None for images.

    Raises:
        UnsupportedModelError: no way to trace it reproduces the model's own outputs.
    """
    graph = EncoderGraph(model, task)
    names, alike, stack = _choose_path(graph, task, max_length)
    stack.callback(graph.release)
    return GraphSpec(name, graph, _example_inputs(model, task), names, (), max_length, alike=alike), stack


def reference_outputs(
    model: PreTrainedModel, task: EncoderTask, inputs: tuple[torch.Tensor, ...]
) -> tuple[torch.Tensor, ...]:
    """The model's outputs for `inputs`, computed with transformers' eager attention.

    Logits are computed everywhere and picked afterwards, so that a graph that picks wrongly differs from them.
    """
    with torch.no_grad():
        return computed_outputs(model, task, inputs)


def computed_outputs(
    model: PreTrainedModel, task: EncoderTask, inputs: tuple[torch.Tensor, ...]
) -> tuple[torch.Tensor, ...]:
    """As `reference_outputs`, with gradients where PyTorch keeps them."""
    model.set_attn_implementation("eager")
    outputs: tuple[torch.Tensor, ...] = EncoderGraph(model, task)(*inputs)
    return outputs


def _example_inputs(model: PreTrainedModel, task: EncoderTask) -> tuple[GraphInput, ...]:
    tensors = probe_inputs(model, task)
    batch = ((0, "batch"),)
    axes = {"logits_positions": (*batch, (1, "num_logits")), **dict.fromkeys(task.beside, batch)}
    text = ((0, "batch"), (1, "sequence")) if task.any_length else batch
    return tuple(
        GraphInput(name, tensor, axes.get(name, text)) for name, tensor in zip(task.names, tensors, strict=True)
    )


@dataclass(frozen=True)
class _Path:
    """One way to trace a model; the fastest is tried first.

    Attributes:
        attention: the implementation to switch the model to.
        rotary_length: positions of the rotary tables; None to trace the model's own rotation.
        substitute: whether norms and activations become single operators, and convolutions matrix products.
    """

    attention: str
    rotary_length: int | None
    substitute: bool


def _paths(model: PreTrainedModel, max_length: int | None) -> list[_Path]:
    rotary = rotary_modules(model)
    tables = bool(rotary) and not any(depends_on_length(module) for module in rotary)
    kinds = [
        *((attention, max_length) for attention in (WITH_PADDING_MASK, WITH_BIAS) if tables),
        *((attention, None) for attention in (WITH_PADDING_MASK, WITH_BIAS, "eager")),
    ]
    return [_Path(attention, length, substitute) for attention, length in kinds for substitute in (True, False)]


def _choose_path(
    graph: EncoderGraph, task: EncoderTask, max_length: int | None
) -> tuple[tuple[str, ...], AlikeLayers | None, ExitStack]:
    """Prepare the model for the first path that reproduces its outputs; returns their names, and the layers alike."""
    inputs = probe_inputs(graph.model, task)
    graph.model.set_attn_implementation("eager")
    prepare_experts(graph.model)
    with torch.no_grad():
        expected = graph(*inputs)
    check_finite("outputs", graph.model, expected)
    if reads_padding(graph, task, inputs, expected):
        raise UnsupportedModelError("its results for a text depend on the padding after it")
    mask = tokens(task, inputs)
    graph.pick_before_head()

    def attempt(path: _Path, stack: ExitStack) -> tuple[float, AlikeLayers | None]:
        stack.enter_context(_prepared(graph.model, path))
        with watched_layers(graph.model) as watch:
            actual = graph(*inputs)
        differences = [difference_at_tokens(task, *pair, mask) for pair in zip(expected, actual, strict=True)]
        return max(differences), watch.alike()

    _, alike, stack = choose_path("outputs", _paths(graph.model, max_length), attempt)
    return _output_names(graph, task, inputs), alike, stack


def _output_names(graph: EncoderGraph, task: EncoderTask, inputs: tuple[torch.Tensor, ...]) -> tuple[str, ...]:
    names: list[str] = []

    def record(results: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        outputs = task.outputs(results)
        names[:] = outputs
        return outputs

    recording = replace(task, outputs=record, picks_positions=False)
    with torch.no_grad():
        EncoderGraph(graph.model, recording)(*inputs[: len(recording.names)])
    return tuple(names)


@contextmanager
def _prepared(model: PreTrainedModel, path: _Path) -> Iterator[None]:
    model.set_attn_implementation(path.attention)
    with ExitStack() as stack:
        stack.enter_context(values_unchecked())
        stack.enter_context(any_length(model))
        stack.enter_context(unchunked(model))
        stack.enter_context(whole_blocks(model))
        stack.enter_context(pooled_by_index(model))
        stack.enter_context(traceable_end(model))
        stack.enter_context(recurrences_replaced(model))
        stack.enter_context(traceable_frame_masks(model))
        stack.enter_context(whole_frame_lengths(model))
        stack.enter_context(forgetful(model))
        if path.rotary_length is None:
            stack.enter_context(native_rotary(model))
        else:
            announce = stack.enter_context(rotating())
            stack.enter_context(fused_rotary(model, path.rotary_length, announce))
        if path.substitute:
            stack.enter_context(single_operators(model))
            stack.enter_context(as_products(model))
        yield
