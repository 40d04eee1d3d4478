"""``triform vectors``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from triform.cli.arguments.common import Bundle, Strict
from triform.cli.arguments.loading import with_loading_options
from triform.cli.outputs.notes import say

if TYPE_CHECKING:
    from triform.runtime.encoder.vectors.token_vectors import TokenVectors
    from triform.runtime.opening import LoadOptions

HELP = """Show the vector of each token in its context, or compare a word's vectors in different contexts.

\b
  triform vectors BUNDLE "We sat on the bank of the river."
  triform vectors BUNDLE "We sat on the bank of the river." --layer 2 --output bank.npy
  triform vectors BUNDLE --word bank "We sat on the river bank." "She robbed a bank." "The bank lends money."

One line per token: index, token, norm of its vector, its first numbers. --json prints them all.
With --word, one line per pair of texts: the cosine similarity of the word's vectors in them, and the texts. It is
higher where the word means the same.
--layer needs a bundle exported with --hidden-states; layer 0 is the embeddings, which know nothing of the context.
"""


@with_loading_options
def run(
    bundle: Bundle = None,
    texts: Annotated[Optional[list[str]], typer.Argument(help="Texts; standard input by default.")] = None,
    word: Annotated[Optional[str], typer.Option(help="Compare this word's vectors in two or more texts.")] = None,
    layer: Annotated[Optional[int], typer.Option(help="The layer to show; the last by default.")] = None,
    output: Annotated[Optional[Path], typer.Option(help="Write the vectors of one text to a NumPy file.")] = None,
    strict: Strict = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per text, or per comparison.")] = False,
    *,
    loading: LoadOptions,
) -> int:
    """Parse, call, render."""
    from triform.cli.arguments.bundle import bundle_and_texts
    from triform.cli.inputs.whole_text import whole_text
    from triform.cli.outputs.notes import end_inputs
    from triform.cli.outputs.part_file import check_not_read
    from triform.runtime.encoder.vectors.token_vectors import token_vectors
    from triform.runtime.errors import InputError
    from triform.runtime.opening import load_encoder

    folder, texts = bundle_and_texts(bundle, texts)
    if word is not None and len(texts) < 2:
        raise InputError("--word compares a word in different texts; give two or more")
    if output is not None and (len(texts) > 1 or as_json):
        raise InputError("--output takes one text and excludes --json")
    if output is not None:
        check_not_read(output, (), folder)
    model = load_encoder(folder, strict=strict, **loading)
    results = (token_vectors(model, text, layer) for text in texts or [whole_text("text", None)])
    if word is not None:
        _compare(list(results), word, as_json=as_json)
    elif output is not None:
        _write(next(results), output)
    else:
        for result in results:
            (_print_json if as_json else _print)(result)
    end_inputs(None, model.reader())
    return 0


def _compare(results: list[TokenVectors], word: str, *, as_json: bool) -> None:
    import json
    from itertools import combinations

    from triform.runtime.arithmetic import cosines

    words = [(result.text, result.of_word(word)) for result in results]
    for (first, vector), (second, other) in combinations(words, 2):
        value = float(cosines(vector, other))
        if as_json:
            print(json.dumps({"word": word, "cosine": value, "texts": [first, second]}))
        else:
            print(f"{value:.4f}\t{' '.join(first.split())}\t{' '.join(second.split())}")


def _write(result: TokenVectors, path: Path) -> None:
    from triform.runtime.files import whole_file, write_npy

    tokens, width = result.vectors.shape
    with whole_file(path) as file:
        write_npy(file, result.vectors, width, result.vectors.dtype.name)
    say(f"wrote {tokens} vectors of {width} numbers to {path}")


def _print(result: TokenVectors) -> None:
    for token, vector in zip(result.tokens, result.vectors, strict=True):
        length = float((vector * vector).sum()) ** 0.5
        numbers = " ".join(f"{number:.4f}" for number in vector[:6])
        print(f"{token.index}\t{token.token}\t{length:.4f}\t{numbers} …")


def _print_json(result: TokenVectors) -> None:
    import dataclasses
    import json

    tokens: list[dict[str, Any]] = [
        {**dataclasses.asdict(token), "vector": vector.tolist()}
        for token, vector in zip(result.tokens, result.vectors, strict=True)
    ]
    print(json.dumps({"text": result.text, "tokens": tokens}))
