"""``triform evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from triform.cli.arguments.common import Bundle
from triform.cli.arguments.completion import complete_bundle
from triform.cli.arguments.loading import with_loading_options

if TYPE_CHECKING:
    from triform.runtime.evaluation.bootstrap import Comparison, Estimate
    from triform.runtime.evaluation.measurement import Measurement
    from triform.runtime.opening import LoadOptions

HELP = """Measure a model's quality on a file with right answers.

\b
  triform evaluate DECODER book.txt                      # perplexity and bits per byte
  triform evaluate DECODER pairs.jsonl                   # source, target: chrF2 and BLEU
  triform evaluate TRANSLATOR pairs.tsv --target-lang de
  triform evaluate CLASSIFIER reviews.jsonl              # text, label: accuracy and macro F1
  triform evaluate TAGGER news.jsonl                     # text, entities: F1, precision and recall
  triform evaluate EMBEDDER pairs.csv                    # text1, text2, score: Spearman and Pearson
  triform evaluate RERANKER pairs.jsonl                  # query, document, score
  triform evaluate SPEECH clips.jsonl                    # audio, text: WER and CER
  triform evaluate INT4_BUNDLE book.txt --against FLOAT_BUNDLE

What is measured follows from the bundle's task and the file's columns. Each number has a confidence interval of 95 %
by the bootstrap (1000 draws of the items). --against measures a second bundle on the same items and draws: the
difference with its interval, and on how many items the first one is better. Error rates and chrF need the extra
evaluate.
"""


@with_loading_options
def run(
    bundle: Bundle = None,
    file: Annotated[
        Optional[str], typer.Argument(help="A text file, or a .jsonl, .json, .csv or .tsv file with right answers.")
    ] = None,
    against: Annotated[
        Optional[Path], typer.Option(autocompletion=complete_bundle, help="Another bundle to compare with.")
    ] = None,
    window: Annotated[
        Optional[int], typer.Option(help="Perplexity: tokens to read at once; windows overlap by half.")
    ] = None,
    language: Annotated[Optional[str], typer.Option(help="Speech: the language spoken.")] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Speech: case and punctuation count.")] = False,
    source_lang: Annotated[Optional[str], typer.Option(help="Translation: language of the sources.")] = None,
    target_lang: Annotated[Optional[str], typer.Option(help="Translation: language to translate into.")] = None,
    max_new_tokens: Annotated[Optional[int], typer.Option(help="Most tokens of a generated text.")] = None,
    batch: Annotated[int, typer.Option(help="Texts to generate at once.")] = 8,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    *,
    loading: LoadOptions,
) -> int:
    """Parse, call, render."""
    from triform.cli.arguments.bundle import bundle_and_prompt
    from triform.cli.commands.bundle.evaluation_tasks import Settings, measure_bundle
    from triform.runtime.errors import InputError
    from triform.runtime.evaluation.bootstrap import compare, estimates

    folder, name = bundle_and_prompt(bundle, file)
    if name is None:
        raise InputError("no file: name a text file, or one with right answers, after the bundle")
    if seed < 0:
        raise InputError(f"--seed must be 0 or more, not {seed}")
    settings = Settings(window, language, exact, source_lang, target_lang, max_new_tokens, batch)
    measured = measure_bundle(folder, Path(name), settings, loading)
    other = None if against is None else measure_bundle(against, Path(name), settings, loading)
    comparison = None if other is None else compare(measured, other, seed)
    (_print_json if as_json else _print)(measured, estimates(measured, seed), comparison)
    return 0


def _print_json(measured: Measurement, values: dict[str, Estimate], comparison: Comparison | None) -> None:
    import dataclasses
    import json

    result: dict[str, Any] = {
        "metrics": {name: dataclasses.asdict(value) for name, value in values.items()},
        "items": len(measured.rows),
        "item": measured.item,
        **measured.details,
    }
    if comparison is not None:
        result["against"] = dataclasses.asdict(comparison)
    print(json.dumps(_finite(result), allow_nan=False))


def _finite(value: Any) -> Any:
    """The same with None for numbers that JSON does not have."""
    import math

    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _print(measured: Measurement, values: dict[str, Estimate], comparison: Comparison | None) -> None:
    for name, value in values.items():
        print(f"{name} {value.value:.4f}{_interval(value)}")
    details = ", ".join(f"{name} {value}" for name, value in measured.details.items())
    print(f"{len(measured.rows)} {measured.item}{f'; {details}' if details else ''}")
    if comparison is None:
        return
    for name, difference in comparison.differences.items():
        print(f"{name} of the other {comparison.others[name]:.4f}, difference {difference.value:+.4f}", end="")
        print(_interval(difference))
    print(f"better on {comparison.better}, worse on {comparison.worse}, equal on {comparison.equal} {measured.item}")


def _interval(estimate: Estimate) -> str:
    if estimate.low is None:
        return " (too few items for an interval)"
    return f" (95 % interval {estimate.low:.4f} to {estimate.high:.4f})"
