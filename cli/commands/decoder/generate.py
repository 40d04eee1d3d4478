"""``triform generate``."""

from __future__ import annotations

import dataclasses
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from triform.cli.arguments.common import Bundle, Template, TemplateVars
from triform.cli.arguments.completion import complete_bundle
from triform.cli.arguments.generation import CONTEXT, DECODER, SEVERAL, with_generation_options
from triform.cli.arguments.loading import with_loading_options
from triform.cli.outputs.notes import say

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from triform.cli.inputs.records import Records
    from triform.runtime.generation.answers import Completion, Generation
    from triform.runtime.generation.options.beams import Beams
    from triform.runtime.generation.options.generation import GenerationOptions
    from triform.runtime.opening import LoadOptions

# The default of --batch.
_BATCH = 8

HELP = """Generate text from a prompt, and stream it.

\b
  triform generate BUNDLE "Write a haiku about rain."
  triform generate BUNDLE --file prompt.txt --max-new-tokens 200
  cat prompt.txt | triform generate BUNDLE --temperature 0.7 --seed 1
  triform generate BUNDLE "Once upon a time" --raw --json
  triform generate BUNDLE "And now?" --system "$(cat rules.txt)" --prompt-cache rules.cache
  triform generate BUNDLE "Name three rivers." --stop "4." --repetition-penalty 1.1
  triform generate BUNDLE "Name a river." --num-beams 4 --num-return-sequences 2
  triform generate BUNDLE "Name a river." --prefill "The longest is" --template-var enable_thinking=false
  triform generate BUNDLE --input prompts.jsonl --output answers.jsonl --batch 8

With TRIFORM_BUNDLE set to a bundle's folder, the prompt alone is enough.
One line break at the end of a prompt from a file or a pipe is removed.
Without sampling options the model's own defaults apply. --temperature 0 always chooses the most likely token.
A last message by the assistant, or --prefill, is continued without being repeated.

--input reads one prompt per line. A .jsonl, .ndjson or .json file holds objects with a text "prompt" or a conversation
"messages"; a .csv or .tsv file has such a column. Each prompt is answered by one JSON object, in the same order,
--batch of them at a time.
"""


@with_generation_options((*DECODER, *CONTEXT), SEVERAL)
@with_loading_options
def run(
    bundle: Bundle = None,
    prompt: Annotated[Optional[str], typer.Argument(help="The prompt; standard input by default, or for -.")] = None,
    file: Annotated[Optional[Path], typer.Option(help="Read the prompt from a file.")] = None,
    system: Annotated[Optional[str], typer.Option(help="The system prompt.")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Do not apply the chat template.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
    stats: Annotated[bool, typer.Option("--stats", help="Print timings to standard error.")] = False,
    prompt_cache: Annotated[
        Optional[Path], typer.Option(help="Save the prompt's key/value cache to this file, and reuse it.")
    ] = None,
    draft: Annotated[
        Optional[Path],
        typer.Option(autocompletion=complete_bundle, help="Speculative decoding: the bundle of a smaller draft model."),
    ] = None,
    logprobs: Annotated[
        Optional[int], typer.Option(help="With --json: log-probabilities of this many likely tokens.")
    ] = None,
    input_file: Annotated[Optional[Path], typer.Option("--input", help="Answer each prompt in a file.")] = None,
    field: Annotated[
        Optional[str], typer.Option(help="With --input: the field or column that holds the prompt.")
    ] = None,
    output: Annotated[Optional[Path], typer.Option(help="With --input: write the answers to a file.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="With --output: continue after the answers of an unfinished run.")
    ] = False,
    batch: Annotated[Optional[int], typer.Option(help="With --input: prompts to run at once, or 8.")] = None,
    skip_errors: Annotated[bool, typer.Option("--skip-errors", help="With --input: skip unusable lines.")] = False,
    tools: Annotated[Optional[Path], typer.Option(help="A JSON list of functions that the model may call.")] = None,
    template: Template = None,
    template_var: TemplateVars = None,
    prefill: Annotated[Optional[str], typer.Option(help="How the answer begins; the model continues it.")] = None,
    *,
    loading: LoadOptions,
    beams: Beams,
    options: GenerationOptions,
) -> int:
    """Parse, call, render."""
    from triform.cli.arguments.bundle import bundle_and_prompt, template_vars
    from triform.cli.commands.decoder.generate_file import GenerationJob, write_answers
    from triform.cli.inputs.tools_file import read_tools
    from triform.cli.inputs.whole_text import whole_text
    from triform.runtime.decoder.prompt_input import PromptOptions
    from triform.runtime.errors import refuse_unused
    from triform.runtime.generation.options.conflicts import SEVERAL_ANSWERS, check_conflicts
    from triform.runtime.opening import load_decoder

    if input_file is None:
        of_files = {"output": output, "field": field, "batch": batch, "resume": resume, "skip_errors": skip_errors}
        given = {name: value is not None and value is not False for name, value in of_files.items()}
        refuse_unused("goes with --input; a single answer goes to standard output", **given)
    options = _with_logprobs(options, logprobs, as_json=as_json or input_file is not None)
    prompt_options = PromptOptions(
        system=system,
        raw=raw,
        tools=read_tools(tools),
        template=template,
        template_vars=template_vars(template_var),
        prefill=prefill,
    )
    folder, prompt = bundle_and_prompt(bundle, prompt)
    load = partial(load_decoder, **loading)
    if input_file is not None:
        single = {"a prompt": prompt, "--file": file, "--prompt-cache": prompt_cache, "--draft": draft}
        records = _records(input_file, field, skip_errors, single)
        job = GenerationJob(load(folder), options, beams, _BATCH if batch is None else batch, prompt_options)
        write_answers(job, folder, records, output, resume=resume, stats=stats)
        return 0
    text = whole_text("prompt", prompt, file)
    updated = None if prompt_cache is None else _if_writable(prompt_cache)
    model = load(folder)
    if model.settle(options, beams=beams).search is not None:
        one_answer = {"prompt_cache": prompt_cache, "draft": draft, "stats": stats or None}
        check_conflicts({**one_answer, SEVERAL_ANSWERS: True})
        job = GenerationJob(model, options, beams, 1, prompt_options)
        _show_answers(next(job.work([text])), as_json=as_json)
        return 0
    check_conflicts({**vars(options), "prompt_cache": prompt_cache, "draft": draft})
    if draft is not None:
        model.use_draft(load(draft))
    if prompt_cache is not None and prompt_cache.exists():
        model.load_prompt_cache(prompt_cache)
    answer = partial(model.stream_to, text, options, **prompt_options)
    generation = _stream(answer, as_json=as_json)
    _finish(generation, as_json=as_json, stats=stats)
    _note_cut(generation, options)
    # Rewrite the cache file only if it covered less than half of this prompt.
    if updated is not None and 2 * generation.cached_tokens < generation.prompt_tokens:
        model.save_prompt_cache(updated, generation.prompt_tokens)
    return 0


def _if_writable(prompt_cache: Path) -> Path | None:
    """The same path; None, with a note, if there is a file that can only be read.

    Raises:
        InputError: there is no file, and none can be made; it is in a bundle, or another file that was read.
    """
    from triform.cli.outputs.part_file import check_not_read
    from triform.runtime.errors import InputError
    from triform.runtime.files import check_writable

    check_not_read(prompt_cache, (), None)
    try:
        check_writable(prompt_cache)
    except InputError as error:
        if not prompt_cache.is_file():
            raise
        say(f"note: {error}; it is read but not updated")
        return None
    return prompt_cache


def _stream(generate: Callable[..., Generation], *, as_json: bool) -> Generation:
    """Generate, and stream the text unless the output is JSON."""
    if as_json:
        return generate(show=lambda text: None)
    try:
        return generate(show=_show)
    except KeyboardInterrupt:
        # The shell's prompt starts on a new line after what was printed.
        print(flush=True)
        raise


def _records(path: Path, field: str | None, skip_errors: bool, others: Mapping[str, object]) -> Records:
    """The prompts of a file, without arguments that are for a single prompt."""
    from triform.cli.commands.decoder.generate_file import FIELDS
    from triform.cli.inputs.records import Records
    from triform.runtime.errors import InputError

    for name, value in others.items():
        if value is not None:
            raise InputError(f"give {name} or --input, not both")
    return Records([], path, field, skip_errors, FIELDS)


def _show_answers(answers: Sequence[Completion], *, as_json: bool) -> None:
    """Print the answers of a search, the best first."""
    if as_json:
        import json

        print(json.dumps([dataclasses.asdict(answer) for answer in answers]))
    elif len(answers) == 1:
        print(answers[0].text)
    else:
        for answer in answers:
            print(f"{answer.score:.4f}\t{' '.join(answer.text.split())}")


def _with_logprobs(options: GenerationOptions, count: int | None, *, as_json: bool) -> GenerationOptions:
    from triform.runtime.errors import refuse_unused

    refuse_unused("needs --json, which prints them", logprobs=count is not None and not as_json)
    return dataclasses.replace(options, logprobs=count if as_json else None)


def _copied(generation: Generation) -> int:
    return (generation.copied_bytes or 0) // max(1, len(generation.token_ids))


def _show(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _note_cut(generation: Generation, options: GenerationOptions) -> None:
    """Say that an answer that was to have a form may lack its end."""
    from triform.runtime.generation.options.conflicts import FORMS

    form = next((name for name in FORMS if getattr(options.constraints, name) is not None), None)
    if form is not None and generation.finish_reason == "length":
        say(
            f"note: cut after {len(generation.token_ids)} tokens, so it may not be whole as --{form.replace('_', '-')} "
            "asks; raise --max-new-tokens"
        )


def _finish(generation: Generation, *, as_json: bool, stats: bool) -> None:
    if as_json:
        import json

        value = dataclasses.asdict(generation)
        for name in ("logprobs", "copied_bytes"):
            if value[name] is None:
                del value[name]
        # ASCII, so that it means the same whatever the terminal's encoding is.
        print(json.dumps(value))
    else:
        print(flush=True)
    if stats:
        timings, cached = generation.timings, generation.cached_tokens
        say(
            f"load {timings.load:.2f} s, prefill {generation.prompt_tokens} tokens, {cached} of them cached, "
            f"in {timings.prefill:.3f} s "
            f"({generation.prefill_tokens_per_second:.0f} tokens/s), "
            f"decode {timings.decode_tokens_per_second:.1f} tokens/s, {len(generation.token_ids)} tokens, "
            f"{generation.proposed_tokens} proposed, {generation.accepted_tokens} of them accepted, "
            f"finish reason: {generation.finish_reason}"
            + (
                ""
                if generation.copied_bytes is None
                else f", {_copied(generation)} bytes a token to and from the device"
            )
        )
