"""``triform generate``."""

from __future__ import annotations

import dataclasses
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from triform.cli.arguments.common import Bundle, Provider, ProviderOptions, Threads, Verify
from triform.cli.arguments.generation import CONTEXT, DECODER, SEVERAL, with_generation_options

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from triform.cli.inputs.records import Records
    from triform.runtime.generation.answers import Generation, Written
    from triform.runtime.generation.options.beams import Beams
    from triform.runtime.generation.options.generation import GenerationOptions

HELP = """Generate text from a prompt, streaming it as it comes.

\b
  triform generate BUNDLE "Write a haiku about rain."
  triform generate BUNDLE --file prompt.txt --max-new-tokens 200
  cat prompt.txt | triform generate BUNDLE --temperature 0.7 --seed 1
  triform generate BUNDLE "Once upon a time" --raw --json
  triform generate BUNDLE "And now?" --system "$(cat rules.txt)" --prompt-cache rules.cache
  triform generate BUNDLE "Name three rivers." --stop "4." --repetition-penalty 1.1
  triform generate BUNDLE "Name a river." --num-beams 4 --num-return-sequences 2
  triform generate BUNDLE --input prompts.jsonl --output answers.jsonl --batch 8

With TRIFORM_BUNDLE set to a bundle's folder, the prompt alone is enough.
Without sampling options the model's own defaults apply. --temperature 0 always takes the most likely token.

--input reads a prompt a line, or of a .jsonl file objects with a text called "prompt" or a conversation called
"messages"; each is answered by one JSON object, in the same order, --batch of them at a time.
"""


@with_generation_options((*DECODER, *CONTEXT), SEVERAL)
def run(
    bundle: Bundle = None,
    prompt: Annotated[Optional[str], typer.Argument(help="The prompt; - or nothing reads standard input.")] = None,
    file: Annotated[Optional[Path], typer.Option(help="Read the prompt from a file.")] = None,
    system: Annotated[Optional[str], typer.Option(help="A system message.")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Bypass the chat template.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
    stats: Annotated[bool, typer.Option("--stats", help="Print speeds on standard error.")] = False,
    provider: Provider = "auto",
    provider_option: ProviderOptions = None,
    threads: Threads = None,
    verify: Verify = "once",
    prompt_cache: Annotated[
        Optional[Path], typer.Option(help="Keep the prompt's keys and values in this file, and use them.")
    ] = None,
    draft: Annotated[Optional[Path], typer.Option(help="A smaller bundle that proposes tokens to check.")] = None,
    logprobs: Annotated[Optional[int], typer.Option(help="With --json: this many likeliest tokens each.")] = None,
    input_file: Annotated[Optional[Path], typer.Option("--input", help="Answer each prompt of a file.")] = None,
    field: Annotated[Optional[str], typer.Option(help="Of --input: where in its objects the prompt is.")] = None,
    output: Annotated[Optional[Path], typer.Option(help="Of --input: write to a file.")] = None,
    batch: Annotated[int, typer.Option(help="Of --input: prompts to run at once.")] = 8,
    skip_errors: Annotated[bool, typer.Option("--skip-errors", help="Of --input: go on without bad lines.")] = False,
    tools: Annotated[Optional[Path], typer.Option(help="A JSON list of functions that the model may call.")] = None,
    *,
    beams: Beams,
    options: GenerationOptions,
) -> int:
    """Parse, call, render."""
    from triform.cli.arguments.bundle import bundle_and_prompt, key_values
    from triform.cli.commands.decoder.generate_file import Job, write_answers
    from triform.cli.inputs.tools_file import read_tools
    from triform.runtime.errors import InputError
    from triform.runtime.opening import load_decoder

    if input_file is None and (output is not None or field is not None or skip_errors):
        raise InputError("--output, --field and --skip-errors go with --input; a single answer goes to standard output")
    options = _with_logprobs(options, logprobs, as_json=as_json or input_file is not None)
    prompting: dict[str, Any] = {"system": system, "raw": raw, "tools": read_tools(tools)}
    folder, prompt = bundle_and_prompt(bundle, prompt)
    load = partial(
        load_decoder, provider=provider, provider_options=key_values(provider_option), threads=threads, verify=verify
    )
    if input_file is not None:
        alone = {"a prompt": prompt, "--file": file, "--prompt-cache": prompt_cache, "--draft": draft}
        records = _records(input_file, field, skip_errors, alone)
        job = Job(load(folder), options, beams, batch, prompting)
        write_answers(job, records, output, stats=stats)
        return 0
    text = _read_prompt(prompt, file)
    model = load(folder)
    single: dict[str, object] = {"--prompt-cache": prompt_cache, "--draft": draft}
    if model.searches(options, beams):
        _refuse({**single, "--stats": stats or None}, "a search, which follows several answers")
        _show_answers(next(model.generate_all([text], options, beams=beams, **prompting)), as_json=as_json)
        return 0
    if options.penalty_alpha is not None:
        _refuse(single, "--penalty-alpha")
    if draft is not None:
        model.use_draft(load(draft))
    if prompt_cache is not None and prompt_cache.exists():
        model.load_prompt_cache(prompt_cache)
    generation = _stream(partial(model.stream_to, text, options, **prompting), as_json=as_json)
    _finish(generation, as_json=as_json, stats=stats)
    # A file that knew half of the prompt is good enough: it is written again only as a conversation doubles.
    if prompt_cache is not None and 2 * generation.cached_tokens < generation.prompt_tokens:
        model.save_prompt_cache(prompt_cache, generation.prompt_tokens)
    return 0


def _stream(generate: Callable[..., Generation], *, as_json: bool) -> Generation:
    """Generate, and unless JSON is wanted show the text as it comes."""
    if as_json:
        return generate(show=lambda text: None)
    try:
        return generate(show=_show)
    except KeyboardInterrupt:
        # What was printed stays, and the shell's prompt starts on a line of its own.
        print(flush=True)
        raise


def _records(path: Path, field: str | None, skip_errors: bool, others: Mapping[str, object]) -> Records:
    """The prompts of a file, where nothing else is given that goes with a single prompt."""
    from triform.cli.commands.decoder.generate_file import FIELDS
    from triform.cli.inputs.records import Records
    from triform.runtime.errors import InputError

    for name, value in others.items():
        if value is not None:
            raise InputError(f"give {name} or --input, not both")
    return Records([], path, field, skip_errors, FIELDS)


def _refuse(given: Mapping[str, object], what: str) -> None:
    from triform.runtime.errors import InputError

    for name, value in given.items():
        if value is not None:
            raise InputError(f"{name} does not go with {what}; leave it out")


def _show_answers(answers: Sequence[Written], *, as_json: bool) -> None:
    """Print the answers of a search, the best first."""
    if as_json:
        import json

        print(json.dumps([dataclasses.asdict(one) for one in answers]))
    elif len(answers) == 1:
        print(answers[0].text)
    else:
        for one in answers:
            print(f"{one.score:.4f}\t{' '.join(one.text.split())}")


def _with_logprobs(options: GenerationOptions, count: int | None, *, as_json: bool) -> GenerationOptions:
    from triform.runtime.errors import InputError

    if count is not None and not as_json:
        raise InputError("--logprobs are printed with --json only; give both")
    return dataclasses.replace(options, logprobs=count)


def _read_prompt(prompt: str | None, file: Path | None) -> str:
    from triform.runtime.errors import InputError

    if prompt is not None and file is not None:
        raise InputError("give the prompt or --file, not both")
    try:
        if file is not None:
            return file.read_text(encoding="utf-8")
        if prompt is not None and prompt != "-":
            return prompt
        if prompt is None and sys.stdin.isatty():
            raise InputError("no prompt: give one as an argument, with --file, or on standard input")
        return sys.stdin.read()
    except OSError as error:
        raise InputError(f"the prompt file {file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"the prompt in {file or 'standard input'} is not UTF-8 text") from None


def _show(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _finish(generation: Generation, *, as_json: bool, stats: bool) -> None:
    if as_json:
        import json

        found = dataclasses.asdict(generation)
        if generation.logprobs is None:
            del found["logprobs"]
        # ASCII, so that it means the same whatever the terminal's encoding is.
        print(json.dumps(found))
    else:
        print(flush=True)
    if stats:
        timings, cached = generation.timings, generation.cached_tokens
        print(
            f"load {timings.load:.2f} s, prefill {generation.prompt_tokens} tokens, {cached} of them cached, "
            f"in {timings.prefill:.3f} s "
            f"({generation.prefill_tokens_per_second:.0f} tokens/s), "
            f"decode {timings.decode_tokens_per_second:.1f} tokens/s, {len(generation.token_ids)} tokens, "
            f"{generation.proposed_tokens} proposed, {generation.accepted_tokens} of them accepted, "
            f"finish reason: {generation.finish_reason}",
            file=sys.stderr,
        )
