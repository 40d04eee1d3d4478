"""The encoder form: all tokens, or all patches of an image, seen at once, as one graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from transformers import PreTrainedModel

from triform.models import bidirectional
from triform.models.errors import UnsupportedModelError
from triform.models.rotary import depends_on_length, fused_rotary, native_rotary, rotary_modules
from triform.models.spec import GraphInput, GraphSpec
from triform.models.substitutions import single_operators

# Probing tolerance, relative to the largest output: float32 rounding of another order of the same operations.
_TOLERANCE = 1e-4

# From a model's outputs, by its own names, to the graph's outputs by ours.
Outputs = Callable[[Mapping[str, Any]], dict[str, torch.Tensor]]


@dataclass(frozen=True)
class EncoderTask:
    """What is to be traced of a model.

    Attributes:
        inputs: names of the model's arguments, in the order the graph takes them; `attention_mask` is 1 at tokens and
            0 at padding, which stands on the right.
        outputs: picks and computes the graph's outputs; called with the model's outputs and inputs.
        picks_positions: whether the graph takes `logits_positions` too, and computes logits there only.
        call: the method of the model to call; None for its forward.
        image_shape: channels, height and width of `pixel_values`, when that is an input.
        arguments: further arguments of the call.
    """

    inputs: tuple[str, ...]
    outputs: Outputs
    picks_positions: bool = False
    call: str | None = None
    image_shape: tuple[int, int, int] | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)


class EncoderGraph(torch.nn.Module):
    """What is traced: the task's inputs in, its outputs out."""

    def __init__(self, model: PreTrainedModel, task: EncoderTask) -> None:
        super().__init__()
        self.model = model
        self._task = task
        self._positions: torch.Tensor | None = None
        if task.picks_positions:
            head = model.get_output_embeddings()
            if head is None:
                raise UnsupportedModelError("it has no language-model head")
            head.register_forward_pre_hook(self._pick)

    def _pick(self, _: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        hidden, positions = arguments[0], self._positions
        if positions is None:
            return (hidden,)
        index = positions[..., None].expand(*positions.shape, hidden.shape[-1])
        return (torch.gather(hidden, 1, index),)

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run the model.

        Args:
            inputs: as the task names them: input_ids, attention_mask and token_type_ids int64 (batch, sequence);
                pixel_values float (batch, channels, height, width); then, where the task picks positions,
                logits_positions int64 (batch, num_logits).

        Returns:
            the task's outputs, in order.
        """
        given = dict(zip(self._task.inputs, inputs, strict=False))
        self._positions = inputs[-1] if self._task.picks_positions else None
        function = self.model if self._task.call is None else getattr(self.model, self._task.call)
        found = function(**given, **self._task.arguments)
        self._positions = None
        named = {"result": found} if isinstance(found, torch.Tensor) else dict(found)
        return _each_its_own(self._task.outputs({**named, **given}).values())


def _each_its_own(outputs: Iterable[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """A tensor that is given twice is copied: a graph's outputs must be as many values as they have names."""
    seen: set[int] = set()
    own = []
    for tensor in outputs:
        own.append(tensor.clone() if id(tensor) in seen else tensor)
        seen.add(id(tensor))
    return tuple(own)


def encoder_spec(
    model: PreTrainedModel, task: EncoderTask, name: str, max_length: int | None
) -> tuple[GraphSpec, ExitStack]:
    """Prepare `model` for tracing as an encoder.

    The model is changed in place; closing the returned stack restores what is shared with other models.

    Args:
        model: a transformers model in float32, on CPU, in evaluation mode.
        task: what to trace.
        name: of the graph.
        max_length: most tokens a row may have; None for images.

    Raises:
        UnsupportedModelError: no way to trace it gives the model's own outputs.
    """
    graph = EncoderGraph(model, task)
    names, stack = _choose_path(graph, task, max_length)
    return GraphSpec(name, graph, _example_inputs(model, task), names, (), max_length), stack


def reference_outputs(
    model: PreTrainedModel, task: EncoderTask, inputs: tuple[torch.Tensor, ...]
) -> tuple[torch.Tensor, ...]:
    """What the model itself, with transformers' own attention, says to `inputs`."""
    model.set_attn_implementation("eager")
    with torch.no_grad():
        outputs: tuple[torch.Tensor, ...] = EncoderGraph(model, task)(*inputs)
    return outputs


def _example_inputs(model: PreTrainedModel, task: EncoderTask) -> tuple[GraphInput, ...]:
    tensors = _probe_inputs(model, task)
    names = (*task.inputs, *(("logits_positions",) if task.picks_positions else ()))
    axes = {"pixel_values": ((0, "batch"),), "logits_positions": ((0, "batch"), (1, "num_logits"))}
    text = ((0, "batch"), (1, "sequence"))
    return tuple(GraphInput(name, tensor, axes.get(name, text)) for name, tensor in zip(names, tensors, strict=True))


def _probe_inputs(model: PreTrainedModel, task: EncoderTask) -> tuple[torch.Tensor, ...]:
    """Two rows, the second padded; or two images."""
    batch, length, padding, picked = 2, 11, 4, 3
    generator = torch.Generator().manual_seed(0)
    text = model.config.get_text_config()
    made = {}
    for name in task.inputs:
        if name == "pixel_values":
            made[name] = torch.randn(batch, *(task.image_shape or (3, 32, 32)), generator=generator)
        elif name == "input_ids":
            made[name] = torch.randint(5, max(6, min(text.vocab_size, 100)), (batch, length), generator=generator)
            made[name][1, -padding:] = text.pad_token_id or 0
        elif name == "attention_mask":
            made[name] = torch.ones(batch, length, dtype=torch.int64)
            made[name][1, -padding:] = 0
        else:
            made[name] = torch.zeros(batch, length, dtype=torch.int64)
    if task.picks_positions:
        made["logits_positions"] = torch.arange(batch * picked).reshape(batch, picked)
    return tuple(made.values())


@dataclass(frozen=True)
class _Path:
    """One way to trace a model; tried in order of speed.

    Attributes:
        attention: the implementation to switch the model to.
        rotary_length: positions of the tables to rotate by; None to trace the model's own rotation.
        substitute: whether norms and activations become single operators.
    """

    attention: str
    rotary_length: int | None
    substitute: bool


def _paths(model: PreTrainedModel, max_length: int | None) -> list[_Path]:
    rotary = rotary_modules(model)
    tables = bool(rotary) and not any(depends_on_length(module) for module in rotary)
    kinds = [
        *((attention, max_length) for attention in (bidirectional.PADDING, bidirectional.BIAS) if tables),
        *((attention, None) for attention in (bidirectional.PADDING, bidirectional.BIAS, "eager")),
    ]
    return [_Path(attention, length, substitute) for attention, length in kinds for substitute in (True, False)]


def _choose_path(graph: EncoderGraph, task: EncoderTask, max_length: int | None) -> tuple[tuple[str, ...], ExitStack]:
    """Take the first path that reproduces the model's own outputs, and stay prepared for it."""
    inputs = _probe_inputs(graph.model, task)
    graph.model.set_attn_implementation("eager")
    with torch.no_grad():
        expected = graph(*inputs)
    _check_padding(graph, task, inputs, expected)
    problem: Exception | None = None
    for path in _paths(graph.model, max_length):
        with ExitStack() as stack:
            try:
                stack.enter_context(_prepared(graph.model, path))
                with torch.no_grad():
                    actual = graph(*inputs)
            except (LookupError, RuntimeError, TypeError, ValueError, AttributeError) as error:
                problem = error
                continue
            if all(_agree(*pair, mask=_tokens(task, inputs)) for pair in zip(expected, actual, strict=True)):
                return _output_names(graph, task, inputs), stack.pop_all()
    raise UnsupportedModelError("its outputs change when its attention is replaced") from problem


def _check_padding(
    graph: EncoderGraph, task: EncoderTask, inputs: tuple[torch.Tensor, ...], expected: tuple[torch.Tensor, ...]
) -> None:
    """Refuse a model that says something else of a text when padding stands behind it: no batch would be right."""
    mask = _tokens(task, inputs)
    if mask is None:
        return
    length = int(mask[1].sum())
    alone = [tensor[1:, :length] if tensor.shape == mask.shape else tensor[1:] for tensor in inputs]
    with torch.no_grad():
        actual = graph(*alone)
    for together, single in zip(expected, actual, strict=True):
        own = together[1:, :length] if together.shape[:2] == mask.shape else together[1:]
        if own.shape != single.shape or not _agree(own, single, None):
            raise UnsupportedModelError("what it says of a text depends on how much padding stands behind it")


def _tokens(task: EncoderTask, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor | None:
    return inputs[task.inputs.index("attention_mask")].bool() if "attention_mask" in task.inputs else None


def _agree(expected: torch.Tensor, actual: torch.Tensor, mask: torch.Tensor | None) -> bool:
    """Whether two outputs are the same where there are tokens; what comes out at padding means nothing."""
    if mask is not None and expected.shape[:2] == mask.shape:
        expected, actual = expected[mask], actual[mask]
    return bool((actual - expected).abs().max() <= _TOLERANCE * expected.abs().max())


def _output_names(graph: EncoderGraph, task: EncoderTask, inputs: tuple[torch.Tensor, ...]) -> tuple[str, ...]:
    names: list[str] = []

    def remember(found: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        outputs = task.outputs(found)
        names[:] = outputs
        return outputs

    recording = replace(task, outputs=remember, picks_positions=False)
    with torch.no_grad():
        EncoderGraph(graph.model, recording)(*inputs[: len(task.inputs)])
    return tuple(names)


@contextmanager
def _prepared(model: PreTrainedModel, path: _Path) -> Iterator[None]:
    model.set_attn_implementation(path.attention)
    with ExitStack() as stack:
        if path.rotary_length is None:
            stack.enter_context(native_rotary(model))
        else:
            announce = stack.enter_context(bidirectional.rotating())
            stack.enter_context(fused_rotary(model, path.rotary_length, announce))
        if path.substitute:
            stack.enter_context(single_operators(model))
        yield
