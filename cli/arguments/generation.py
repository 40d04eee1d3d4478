"""The options of every command that generates, declared once and put into the commands' signatures.

A command takes them as one argument, `options`::

    @with_generation_options(DECODER)
    def run(bundle: Bundle = None, options: GenerationOptions = ...) -> int:
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import typer

from triform.cli.arguments.replacing import replace_parameters

if TYPE_CHECKING:
    from triform.runtime.generation.options.beams import Beams
    from triform.runtime.generation.options.generation import GenerationOptions

Number = TypeVar("Number", int, float)


class Argument(NamedTuple):
    """An option by the name it has in `GenerationOptions` or one of its groups; texts are read by `_READERS`.

    Its flags are those listed, or the one that its name makes.
    """

    name: str
    kind: Any
    help: str
    flags: tuple[str, ...] = ()


DECODER = (
    Argument("max_new_tokens", int, "Generate at most this many tokens."),
    Argument("min_new_tokens", int, "Generate at least this many tokens."),
    Argument("stop", list[str], "Stop before this text; repeatable."),
    Argument(
        "stop_token",
        list[str],
        "Also stop at this token, an id or its text; repeatable.",
        ("--stop-token", "--eos-token"),
    ),
    Argument("temperature", float, "Sampling temperature; 0 is greedy, higher is more random."),
    Argument("top_k", int, "Sample from the k most likely tokens; 0 is all."),
    Argument("top_p", float, "Sample from the most likely tokens that together have this probability."),
    Argument("seed", int, "Random seed; makes sampling repeatable."),
    Argument("min_p", float, "Sample from tokens at least this fraction as likely as the most likely."),
    Argument("typical_p", float, "Sample from the most typical tokens that together have this probability."),
    Argument("top_n_sigma", float, "Sample from logits within this many standard deviations of the largest."),
    Argument("epsilon_cutoff", float, "Sample from tokens of at least this probability."),
    Argument("eta_cutoff", float, "Like --epsilon-cutoff, but lower where the distribution is flat."),
    Argument("xtc_threshold", float, "XTC: drop all but the least likely token of at least this probability."),
    Argument("xtc_probability", float, "XTC: how often tokens are dropped, from 0 to 1."),
    Argument("mirostat_tau", float, "Mirostat 2: target surprise, in bits per token."),
    Argument("mirostat_eta", float, "Mirostat 2: learning rate; 0.1 by default."),
    Argument("repetition_penalty", float, "Above 1, tokens already in the text become less likely."),
    Argument("frequency_penalty", float, "Subtracted from a token's logit for each time it was generated."),
    Argument("presence_penalty", float, "Subtracted from the logit of a token that was generated before."),
    Argument("no_repeat_ngram_size", int, "No sequence of this many tokens occurs twice."),
    Argument("dry_multiplier", float, "DRY: penalty for repeated sequences."),
    Argument("dry_base", float, "DRY: growth of the penalty per token; 1.75 by default."),
    Argument("dry_allowed_length", int, "DRY: shorter repetitions are not penalized; 2 by default."),
    Argument("dry_sequence_breakers", list[str], "DRY: texts that end a sequence; repeatable."),
    Argument("exponential_decay_length_penalty", str, "START,FACTOR: favor ending, more and more, after START tokens."),
    Argument("logit_bias", list[str], "ID=BIAS: add BIAS to this token's logit; repeatable."),
    Argument("bad_words", list[str], "Never generate this text; repeatable."),
    Argument("suppress_tokens", str, "ID,ID,…: never generate these tokens."),
    Argument("begin_suppress_tokens", str, "ID,ID,…: do not generate these tokens first."),
    Argument("forced_tokens", list[str], "PLACE=ID: generate this token at this place, counted from 0; repeatable."),
    Argument("forced_eos_token_id", str, "ID,ID,…: the last token, when the length limit is reached."),
    Argument("json_schema", Path, "Answer with JSON that follows the schema in this file."),
    Argument("regex", str, "Answer with text that matches this regular expression."),
    Argument("grammar", Path, "Answer with text that follows the grammar in this file, Lark or GBNF."),
    Argument("choices", str, "TEXT,TEXT,…: answer with one of these."),
    Argument("order", str, "STEP,STEP,…: apply these steps in this order; docs/decoding.md lists them."),
)
# Further options of decoders.
CONTEXT = (
    Argument("penalty_alpha", float, "Contrastive search with --top-k: weight of the similarity penalty, 0 to 1."),
    Argument("speculate", str, "Prompt lookup decoding: lookup, off, or auto, where it is sure to be exact."),
    Argument("on_overflow", str, "When the context is full: error, or shift, which drops the oldest tokens."),
    Argument("keep", int, "With --on-overflow shift: always keep this many tokens at the start."),
)
# Options of encoder-decoders.
ENCODER_DECODER = (
    *DECODER,
    Argument("encoder_repetition_penalty", float, "Above 1, tokens of the source become more likely."),
    Argument("encoder_no_repeat_ngram_size", int, "No sequence of this many tokens of the source is generated."),
    Argument("forced_bos_token_id", int, "The id of the first token to generate."),
)
# Names of `Beams`, for commands that search …
BEAMS = (
    Argument("num_beams", int, "Beam search with this many beams; by default the model's own number."),
    Argument("length_penalty", float, "Beam search: above 0 favors long answers."),
    Argument("early_stopping", str, "Beam search: true, false or never, as in transformers."),
    Argument("num_beam_groups", int, "Diverse beam search: number of groups of beams."),
    Argument("diversity_penalty", float, "Diverse beam search: penalty for tokens that another group chose."),
    Argument("best_of", int, "Sample this many answers and return the most likely."),
)
# … and print more than the best answer.
SEVERAL = (*BEAMS, Argument("num_return_sequences", int, "Return this many answers, the best first."))


def with_generation_options(
    arguments: Sequence[Argument], beams: Sequence[Argument] = ()
) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Replace a command's parameters `options` and `beams` by one parameter for each of these.

    Args:
        arguments: of `GenerationOptions`, to offer on the command line.
        beams: of `Beams`; a command that takes none has no such parameter.
    """

    def decorate(command: Callable[..., int]) -> Callable[..., int]:
        @wraps(command)
        def run(**parsed: Any) -> int:
            values = {argument.name: parsed.pop(argument.name) for argument in arguments}
            search = {argument.name: parsed.pop(argument.name) for argument in beams}
            more = {"beams": beam_options(search)} if beams else {}
            return command(**parsed, **more, options=generation_options(values))

        added = [_parameter(argument) for argument in (*arguments, *beams)]
        replace_parameters(run, command, {"options": added} | ({"beams": []} if beams else {}))
        return run

    return decorate


def _parameter(argument: Argument) -> inspect.Parameter:
    option = typer.Option(None, *argument.flags, help=argument.help)
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(argument.name, kind, default=option, annotation=argument.kind | None)


def generation_options(values: Mapping[str, Any], **more: Any) -> GenerationOptions:
    """The options that were given, read and checked.

    Args:
        values: by name, as the command line has them; None where not given.
        more: attributes of `GenerationOptions` that are not on the command line.

    Raises:
        InputError: one cannot be read, is out of range, or contradicts another.
    """
    from dataclasses import fields

    from triform.runtime.generation.options.generation import GenerationOptions
    from triform.runtime.generation.options.groups import Constraints, Penalties, Truncation

    parsed = _read(values)
    groups: dict[str, Any] = {"truncation": Truncation, "penalties": Penalties, "constraints": Constraints}
    for key, kind in groups.items():
        more[key] = kind(**{item.name: parsed.pop(item.name) for item in fields(kind) if item.name in parsed})
    return GenerationOptions(**parsed, **more)


def changed_options(options: GenerationOptions, values: Mapping[str, Any]) -> GenerationOptions:
    """The options with some of them changed; None restores the default.

    Arguments and errors as `generation_options`.
    """
    from dataclasses import fields, replace

    from triform.runtime.generation.options.generation import GenerationOptions

    blank, read = GenerationOptions(), _read(values)
    more: dict[str, Any] = {}
    for key in ("truncation", "penalties", "constraints"):
        names = [item.name for item in fields(getattr(options, key)) if item.name in values]
        more[key] = replace(getattr(options, key), **{name: read.get(name) for name in names})
    own = [item.name for item in fields(options) if item.name in values]
    return replace(options, **more, **{name: read.get(name, getattr(blank, name)) for name in own})


def beam_options(values: Mapping[str, Any]) -> Beams:
    """The options of a search that were given, read and checked. Arguments and errors as `generation_options`."""
    from triform.runtime.generation.options.beams import Beams

    return Beams(**_read(values))


def _read(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _READERS[name](name, value) if name in _READERS else value
        for name, value in values.items()
        # typer gives an empty list for a repeatable option that is not there.
        if value is not None and value != []
    }


def _early_stopping(name: str, value: str) -> Any:
    # What is none of these is refused as it is.
    return {"true": True, "false": False}.get(value, value)


def _texts(name: str, values: Sequence[str]) -> tuple[str, ...]:
    return tuple(values)


def _tokens(name: str, values: Sequence[str]) -> tuple[int | str, ...]:
    return tuple(int(value) if value.isascii() and value.isdigit() else value for value in values)


def _split(name: str, value: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(","))


def _file(name: str, path: Path) -> str:
    from triform.cli.inputs.whole_text import read_text_file
    from triform.runtime.errors import option

    return read_text_file(option(name), path)


def _ids(name: str, value: str) -> tuple[int, ...]:
    return tuple(_number(name, part, int, "token ids separated by commas") for part in value.split(","))


def _biases(name: str, values: Sequence[str]) -> dict[int, float]:
    return _pairs(name, values, float, "ID=BIAS")


def _places(name: str, values: Sequence[str]) -> dict[int, int]:
    return _pairs(name, values, int, "PLACE=ID")


def _pairs(name: str, values: Sequence[str], kind: type[Number], expected: str) -> dict[int, Number]:
    split = (value.partition("=") for value in values)
    return {_number(name, key, int, expected): _number(name, value, kind, expected) for key, _, value in split}


def _decay(name: str, value: str) -> tuple[int, float]:
    start, _, factor = value.partition(",")
    return _number(name, start, int, "START,FACTOR"), _number(name, factor, float, "START,FACTOR")


def _number(name: str, text: str, kind: type[Number], expected: str) -> Number:
    from triform.runtime.errors import InputError, option

    try:
        return kind(text)
    except ValueError:
        raise InputError(f"{option(name)} must be {expected}, but {text!r} is not a number") from None


_READERS: dict[str, Callable[[str, Any], Any]] = {
    "stop": _texts,
    "stop_token": _tokens,
    "early_stopping": _early_stopping,
    "order": _split,
    "json_schema": _file,
    "grammar": _file,
    "choices": _split,
    "dry_sequence_breakers": _texts,
    "exponential_decay_length_penalty": _decay,
    "logit_bias": _biases,
    "bad_words": _texts,
    "suppress_tokens": _ids,
    "begin_suppress_tokens": _ids,
    "forced_tokens": _places,
    "forced_eos_token_id": _ids,
}
