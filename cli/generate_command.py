"""``triform generate``."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from triform.cli.arguments import Bundle, Provider, ProviderOptions, Threads
from triform.cli.generation_arguments import CONTEXT, DECODER, with_generation_options

if TYPE_CHECKING:
    from triform.runtime.decoder import Generation
    from triform.runtime.options import GenerationOptions

HELP = """Generate text from a prompt, streaming it as it comes.

\b
  triform generate BUNDLE "Write a haiku about rain."
  triform generate BUNDLE --file prompt.txt --max-new-tokens 200
  cat prompt.txt | triform generate BUNDLE --temperature 0.7 --seed 1
  triform generate BUNDLE "Once upon a time" --raw --json
  triform generate BUNDLE "And now?" --system "$(cat rules.txt)" --prompt-cache rules.cache
  triform generate BUNDLE "Name three rivers." --stop "4." --repetition-penalty 1.1

With TRIFORM_BUNDLE set to a bundle's folder, the prompt alone is enough.
Without sampling options the model's own defaults apply. --temperature 0 always takes the most likely token.
"""


@with_generation_options((*DECODER, *CONTEXT))
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
    prompt_cache: Annotated[
        Optional[Path], typer.Option(help="Keep the prompt's keys and values in this file, and use them.")
    ] = None,
    logprobs: Annotated[Optional[int], typer.Option(help="With --json: this many likeliest tokens each.")] = None,
    *,
    options: GenerationOptions,
) -> int:
    """Parse, call, render."""
    from triform.cli.options import bundle_and_prompt, key_values
    from triform.runtime.opening import load_decoder

    options = _with_logprobs(options, logprobs, as_json=as_json)
    folder, prompt = bundle_and_prompt(bundle, prompt)
    text = _read_prompt(prompt, file)
    model = load_decoder(folder, provider=provider, provider_options=key_values(provider_option), threads=threads)
    if prompt_cache is not None and prompt_cache.exists():
        model.load_prompt_cache(prompt_cache)
    show = (lambda _: None) if as_json else _show
    try:
        generation = model.stream_to(text, options, system=system, raw=raw, show=show)
    except KeyboardInterrupt:
        # What was printed stays, and the shell's prompt starts on a line of its own.
        if not as_json:
            print(flush=True)
        raise
    _finish(generation, as_json=as_json, stats=stats)
    # A file that knew half of the prompt is good enough: it is written again only as a conversation doubles.
    if prompt_cache is not None and 2 * generation.cached_tokens < generation.prompt_tokens:
        model.save_prompt_cache(prompt_cache, generation.prompt_tokens)
    return 0


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
            f"finish reason: {generation.finish_reason}",
            file=sys.stderr,
        )
