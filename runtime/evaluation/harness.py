"""Lets EleutherAI's lm-eval score decoder bundles: its model `triform`, and its command line with that model.

Read only where lm-eval is installed.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

try:
    from lm_eval.api.model import LM
    from lm_eval.api.registry import register_model
except ImportError:
    # There is a command of this name even where lm-eval is missing; it says so in one line.
    sys.exit("error: triform-lm-eval needs lm-eval: pip install 'lm-eval>=0.4.13'")

from triform.runtime.errors import InputError, TriformError
from triform.runtime.evaluation.likelihoods import Likelihoods
from triform.runtime.generation.options.generation import GenerationOptions

# lm-eval's own default.
_MOST_TOKENS = 256
# Settings of a generation that mean the same here.
_SAMPLING = ("temperature", "top_k", "top_p")


@register_model("triform")
class BundleModel(LM):  # type: ignore[misc]
    """A decoder bundle, as lm-eval uses a model.

    Args:
        bundle: its folder.
        batch_size: texts to generate at once; likelihoods are computed one after another, and do not run again what a
            context shares with the one before.
        threads: see `SessionOptions`.
        max_batch_size: ignored.
        device: ignored: lm-eval names a GPU by default, and bundles run on the CPU.
    """

    def __init__(
        self,
        bundle: str,
        batch_size: int | str | None = None,
        threads: int | None = None,
        max_batch_size: int | None = None,
        device: str | None = None,
    ) -> None:
        super().__init__()
        self._likelihoods = Likelihoods(bundle, threads=threads)
        # lm-eval's ``auto`` is for models that have to fit a GPU.
        self._batch = int(str(batch_size)) if str(batch_size).isdigit() else 8

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """For each (context, continuation) its log-likelihood in nats, and whether it is the greedy one."""
        # Those with the same context after one another.
        order = sorted(range(len(requests)), key=lambda index: requests[index].args)
        answers: dict[int, tuple[float, bool]] = {}
        for index in order:
            answers[index] = self._likelihoods.of_continuation(*requests[index].args)
            self.cache_hook.add_partial("loglikelihood", requests[index].args, answers[index])
        return [answers[index] for index in range(len(requests))]

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """For each (text,) its log-likelihood in nats."""
        return [self._likelihoods.of_text(request.args[0]) for request in requests]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """For each (prompt, settings) the generated text, up to one of the texts in ``until``.

        Raises:
            InputError: a setting has no meaning here, or a prompt is too long.
        """
        groups: dict[str, list[int]] = {}
        for index, request in enumerate(requests):
            groups.setdefault(repr(sorted(request.args[1].items())), []).append(index)
        answers: dict[int, str] = {}
        for indexes in groups.values():
            options = generation_options(requests[indexes[0]].args[1])
            prompts = (requests[index].args[0] for index in indexes)
            results = self._likelihoods.model.generate_all(prompts, options, batch=self._batch, raw=True)
            for index, completions in zip(indexes, results, strict=True):
                answers[index] = completions[0].text
                self.cache_hook.add_partial("generate_until", requests[index].args, answers[index])
        return [answers[index] for index in range(len(requests))]


def generation_options(settings: Mapping[str, Any]) -> GenerationOptions:
    """The options for lm-eval's settings of a generation; greedy unless they say ``do_sample``.

    Raises:
        InputError: a setting is not known.
    """
    left = dict(settings)
    until, most = left.pop("until", ()), left.pop("max_gen_toks", _MOST_TOKENS)
    sampling = {name: left.pop(name) for name in _SAMPLING if name in left}
    if not left.pop("do_sample", False):
        sampling = {"temperature": 0}
    if left:
        raise InputError(f"triform does not know the generation settings {', '.join(left)}; leave them out of the task")
    stop = (until,) if isinstance(until, str) else tuple(until)
    return GenerationOptions(max_new_tokens=most, stop=tuple(text for text in stop if text), **sampling)


def main() -> None:
    """Run lm-eval's command line."""
    from lm_eval.__main__ import cli_evaluate

    try:
        cli_evaluate()
    except TriformError as error:
        sys.exit(f"error: {error}")
