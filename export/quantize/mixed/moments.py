"""Measures how much each output of a model's products matters, and for which inputs.

What counts in the end is the divergence of the model's predictions. To second order it is half of the squared changes
of each product's outputs, weighted by the squared gradients of the loss at tokens drawn from the model's own
predictions (the Fisher information). So each token's input counts in proportion to the squared gradient at its output:
tokens with huge activations, such as the first of a text, often change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import PreTrainedModel

from triform.export.samples.texts import TokenWindows
from triform.export.verify.decoder import eager_attention
from triform.models.traceable.experts import Watcher, watched_products


@dataclass
class Moments:
    """What is known of one product: y = x @ weight.T, over tokens.

    Attributes:
        inputs: float32 (in_features, in_features), the mean of x.T @ x, each token weighted by the sum of its squared
            gradients at y; in a file, because those of all products take more memory than the model.
        outputs: float32 (out_features,), the mean squared gradient at each y.
    """

    inputs: torch.Tensor
    outputs: torch.Tensor


@dataclass
class ExpertMoments:
    """What is known of one product of a layer's experts, over the tokens that each expert was given.

    Attributes:
        inputs: float32 (num_experts, in_features), the mean squares of what it reads, each token weighted by the sum of
            its squared gradients at the result.
        outputs: float32 (num_experts, out_features), the mean squared gradient at each result.
    """

    inputs: torch.Tensor
    outputs: torch.Tensor


@dataclass
class Sensitivity:
    """What was measured of a model.

    Attributes:
        products: by the identity of the weight, a parameter.
        embedding: float32 (hidden_size,), the mean squared gradient at each column of the embedding's weight.
        tables: the same of every table that tokens are looked up in, by the identity of its weight.
        experts: by the identity of the weights of all experts of a layer, a parameter.
        routers: by the identity of the weight of a module that gives more than a product, and so chooses experts:
            float32 (in_features,), the sum of squares of what it reads.
    """

    products: dict[int, Moments] = field(default_factory=dict)
    embedding: torch.Tensor | None = None
    tables: dict[int, torch.Tensor] = field(default_factory=dict)
    experts: dict[int, ExpertMoments] = field(default_factory=dict)
    routers: dict[int, torch.Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Differentiable:
    """A model, and numbers it computes whose gradients tell what errors of its products do to its results.

    Attributes:
        network: in float32.
        values: gives the numbers, each computed when the next is asked for.
        count: what the sums of squared gradients are divided by.
    """

    network: PreTrainedModel
    values: Callable[[], Iterator[torch.Tensor]]
    count: int

    @property
    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """By every name that they have."""
        return dict(self.network.named_parameters(remove_duplicate=False))

    def sensitivity(self, scratch: Path) -> Sensitivity:
        """See `measure`."""
        return measure(self.network, product_modules(self.network), self.values(), self.count, scratch)


def product_modules(model: PreTrainedModel) -> list[torch.nn.Module]:
    """The modules with a matrix that is multiplied by, and not looked up."""
    return [
        module
        for module in model.modules()
        if isinstance(weight := getattr(module, "weight", None), torch.nn.Parameter)
        and weight.dim() == 2
        and not isinstance(module, torch.nn.Embedding)
    ]


def measure(
    model: PreTrainedModel,
    modules: Sequence[torch.nn.Module],
    values: Iterable[torch.Tensor],
    count: int,
    scratch: Path,
) -> Sensitivity:
    """Run texts through the model, forth and back.

    Args:
        model: in float32; its parameters are frozen.
        modules: to measure, of `product_modules`.
        values: each a number that the model computes when the next is asked for, whose gradients are squared.
        count: what the sums of squares are divided by.
        scratch: a folder, which must stay while the result is used.
    """
    model.requires_grad_(False)
    result = Sensitivity()
    with ExitStack() as stack:
        for module in modules:
            handle = module.register_forward_hook(_product_hook(result, module.get_parameter("weight"), count, scratch))
            stack.callback(handle.remove)
        stack.enter_context(watched_products(_expert_watcher(result.experts, count)))
        for embedding in _token_embeddings(model):
            stack.callback(embedding.register_forward_hook(_embedding_hook(result.tables, count)).remove)
        stack.enter_context(torch.enable_grad())
        for value in values:
            value.backward()
    first = _input_embedding(model)
    if first is not None:
        result.embedding = result.tables.get(id(first.get_parameter("weight")))
    return result


def _token_embeddings(model: PreTrainedModel) -> list[torch.nn.Module]:
    """The modules that look tokens up: encoder-decoders have several around one weight, Gemma 3n and 4 two tables."""
    tables = [module for module in model.modules() if isinstance(module, torch.nn.Embedding)]
    first = _input_embedding(model)
    rows = max((len(table.weight) for table in tables), default=0)
    if first is not None:
        rows = len(first.get_parameter("weight"))
    # Tables of positions and of types of tokens are smaller.
    found: list[torch.nn.Module] = [] if first is None else [first]
    return found + [table for table in tables if table is not first and 2 * len(table.weight) >= rows]


def _input_embedding(model: PreTrainedModel) -> torch.nn.Module | None:
    """The table of tokens; None where there is not one: CANINE has several, of hashed tokens, and images have none."""
    try:
        module: torch.nn.Module = model.get_input_embeddings()
    except NotImplementedError:
        return None
    return module if isinstance(getattr(module, "weight", None), torch.nn.Parameter) else None


def predictions(model: PreTrainedModel, sample: TokenWindows) -> Iterator[torch.Tensor]:
    """The log-likelihood of tokens that a decoder draws itself, one number for each window of a text."""
    draw = torch.Generator().manual_seed(0)
    with eager_attention(model), torch.enable_grad():
        for start in range(0, len(sample.ids), sample.window):
            ids = torch.tensor([sample.ids[start : start + sample.window]])
            logits = model(input_ids=ids, use_cache=False).logits[0].float()
            yield drawn_likelihood(logits, draw)


def drawn_likelihood(logits: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """The log-likelihood of tokens that are drawn from their own predictions, one number.

    Args:
        logits: float32 (tokens, vocab_size).
        draw: makes the draws.
    """
    tokens = torch.multinomial(logits.detach().softmax(-1), 1, generator=draw)
    return logits.log_softmax(-1).gather(-1, tokens).sum()


_Hook = Callable[[torch.nn.Module, tuple[torch.Tensor, ...], torch.Tensor], torch.Tensor | None]


def _tracked(output: torch.Tensor) -> torch.Tensor:
    """What a module gives, with a gradient where it has none by itself, as of constants and of the first product.

    It may be changed in place, as wav2vec2 does with what it pads; PyTorch refuses that where gradients begin.
    """
    return output if output.requires_grad else output.detach().requires_grad_(True).clone()


def _product_hook(result: Sensitivity, weight: torch.Tensor, tokens: int, scratch: Path) -> _Hook:
    products = result.products

    def hook(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor | None:
        if not torch.is_grad_enabled():
            return None
        if not isinstance(output, torch.Tensor):
            squares = inputs[0].detach().flatten(0, -2).square().sum(0)
            result.routers[id(weight)] = squares + result.routers.get(id(weight), torch.zeros(()))
            return None
        output = _tracked(output)
        x = inputs[0].detach().flatten(0, -2)

        def add(gradient: torch.Tensor) -> None:
            squares = gradient.flatten(0, -2).square()
            known = products.get(id(weight))
            if known is None:
                inputs = _zeros_on_disk(scratch / f"moments.{len(products)}", x.shape[-1])
                known = products[id(weight)] = Moments(inputs, torch.zeros(squares.shape[-1]))
            known.inputs += (x * squares.sum(-1, keepdim=True)).T @ x / tokens
            known.outputs += squares.sum(0) / tokens

        output.register_hook(add)
        return output

    return hook


def _expert_watcher(experts: dict[int, ExpertMoments], tokens: int) -> Watcher:
    def watch(weights: torch.Tensor, expert: int, rows: torch.Tensor, product: torch.Tensor) -> torch.Tensor:
        if not torch.is_grad_enabled():
            return product
        product, x = _tracked(product), rows.detach()

        def add(gradient: torch.Tensor) -> None:
            squares = gradient.square()
            known = experts.get(id(weights))
            if known is None:
                count = len(weights)
                known = ExpertMoments(torch.zeros(count, x.shape[-1]), torch.zeros(count, squares.shape[-1]))
                experts[id(weights)] = known
            known.inputs[expert] += (x.square() * squares.sum(-1, keepdim=True)).sum(0) / tokens
            known.outputs[expert] += squares.sum(0) / tokens

        product.register_hook(add)
        return product

    return watch


def _zeros_on_disk(file: Path, width: int) -> torch.Tensor:
    """Float32 (width, width)."""
    return torch.from_file(str(file), shared=True, size=width * width, dtype=torch.float32).view(width, width)


def _embedding_hook(tables: dict[int, torch.Tensor], tokens: int) -> _Hook:
    def hook(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor | None:
        weight = module.get_parameter("weight")
        if not torch.is_grad_enabled() or not inputs or not _are_looked_up(inputs[0], weight, output):
            return None
        rows = torch.nn.functional.embedding(inputs[0], weight)
        # Some models multiply what they look up by a constant.
        factor = output.detach().square().mean() / rows.square().mean().clamp(min=1e-30)
        output = _tracked(output)

        def add(gradient: torch.Tensor) -> None:
            squares = gradient.flatten(0, -2).square().sum(0) * factor / tokens
            known = tables.get(id(weight))
            tables[id(weight)] = squares if known is None else known + squares

        output.register_hook(add)
        return output

    return hook


def _are_looked_up(ids: torch.Tensor, weight: torch.Tensor, output: torch.Tensor) -> bool:
    """Whether these could be the rows of the output: tables of positions may be given a mask, or a length."""
    if not isinstance(ids, torch.Tensor) or ids.is_floating_point() or output.shape != (*ids.shape, weight.shape[1]):
        return False
    return bool(ids.min() >= 0) and bool(ids.max() < len(weight))
