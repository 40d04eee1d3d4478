"""``triform answer``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from triform.cli.arguments.common import Bundle
from triform.cli.arguments.loading import with_loading_options

if TYPE_CHECKING:
    from triform.runtime.encoder.answering import Answer
    from triform.runtime.opening import LoadOptions

HELP = """Find the answer to a question in a text of any length.

\b
  triform answer BUNDLE "Where was Ada born?" --context "Ada Lovelace was born in London in 1815."
  triform answer BUNDLE "Who kept the lighthouse?" --file story.txt --top-k 3
  cat story.txt | triform answer BUNDLE "Who kept the lighthouse?" --no-answer --json

One line per answer, the best first: score, start-end, text, separated by tabs. Start and end are character offsets in
the context. With --no-answer the best answer may be that there is none.
For a model that reads where words stand (LayoutLM) the text is a page as for triform tag: a JSON object of "words",
"boxes" and "page".
"""


@with_loading_options
def run(
    bundle: Bundle = None,
    question: Annotated[Optional[str], typer.Argument(help="The question.")] = None,
    context: Annotated[Optional[str], typer.Option(help="The text; standard input by default.")] = None,
    file: Annotated[Optional[Path], typer.Option(help="Read the text from a file.")] = None,
    top_k: Annotated[int, typer.Option(help="Number of answers to show.")] = 1,
    max_answer_length: Annotated[int, typer.Option(help="Maximum length of an answer, in tokens.")] = 15,
    stride: Annotated[
        Optional[int], typer.Option(help="Overlap of windows in tokens; 128 by default, less after a long question.")
    ] = None,
    no_answer: Annotated[bool, typer.Option("--no-answer", help="Allow for a text that holds no answer.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array of answers.")] = False,
    *,
    loading: LoadOptions,
) -> int:
    """Parse, call, render."""
    from triform.cli.arguments.bundle import bundle_and_prompt
    from triform.cli.inputs.pages import text_or_page
    from triform.cli.inputs.whole_text import whole_text
    from triform.runtime.encoder.answering import answer
    from triform.runtime.errors import InputError
    from triform.runtime.opening import load_encoder

    folder, question = bundle_and_prompt(bundle, question)
    if question is None:
        raise InputError("there is no question: give one after the bundle")
    pair = (question, text_or_page(whole_text("context", context, file), str(file or "the context")))
    model = load_encoder(folder, **loading)
    answers = answer(
        model, [pair], top_k=top_k, max_answer_length=max_answer_length, stride=stride, no_answer=no_answer
    )
    if as_json:
        _print_json(next(answers), on_page=not isinstance(pair[1], str))
    else:
        _print(next(answers))
    return 0


def _print(answers: list[Answer]) -> None:
    for answer in answers:
        shown = " ".join(answer.text.split()) or "(no answer)"
        print(f"{answer.score:.4f}\t{answer.start}-{answer.end}\t{shown}")


def _print_json(answers: list[Answer], *, on_page: bool) -> None:
    import dataclasses
    import json

    found = [dataclasses.asdict(answer) for answer in answers]
    if not on_page:
        for fields in found:
            del fields["words"]
    print(json.dumps(found))
