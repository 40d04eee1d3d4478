"""``triform generate``."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from triform.cli.arguments import Bundle, Provider, ProviderOptions, Threads

if TYPE_CHECKING:
    from triform.runtime.decoder import Generation

HELP = """Generate text from a prompt, streaming it as it comes.

\b
  triform generate BUNDLE "Write a haiku about rain."
  triform generate BUNDLE --file prompt.txt --max-new-tokens 200
  cat prompt.txt | triform generate BUNDLE --temperature 0.7 --seed 1
  triform generate BUNDLE "Once upon a time" --raw --json

With TRIFORM_BUNDLE set to a bundle's folder, the prompt alone is enough.
Without sampling options the model's own defaults apply. --temperature 0 always takes the most likely token.
"""


def run(
    bundle: Bundle = None,
    prompt: Annotated[Optional[str], typer.Argument(help="The prompt; - or nothing reads standard input.")] = None,
    file: Annotated[Optional[Path], typer.Option(help="Read the prompt from a file.")] = None,
    max_new_tokens: Annotated[Optional[int], typer.Option(help="Stop after this many tokens.")] = None,
    temperature: Annotated[Optional[float], typer.Option(help="0 is greedy; higher is more random.")] = None,
    top_k: Annotated[Optional[int], typer.Option(help="Sample from the k most likely tokens; 0 is all.")] = None,
    top_p: Annotated[Optional[float], typer.Option(help="Sample from the most likely tokens up to this sum.")] = None,
    seed: Annotated[Optional[int], typer.Option(help="Make sampling repeatable.")] = None,
    system: Annotated[Optional[str], typer.Option(help="A system message.")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Bypass the chat template.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
    stats: Annotated[bool, typer.Option("--stats", help="Print speeds on standard error.")] = False,
    provider: Provider = "auto",
    provider_option: ProviderOptions = None,
    threads: Threads = None,
) -> int:
    """Parse, call, render."""
    from triform.cli.options import bundle_and_prompt, key_values
    from triform.runtime.opening import load_decoder
    from triform.runtime.options import GenerationOptions

    options = GenerationOptions(max_new_tokens, temperature, top_k, top_p, seed)
    folder, prompt = bundle_and_prompt(bundle, prompt)
    text = _read_prompt(prompt, file)
    model = load_decoder(folder, provider=provider, provider_options=key_values(provider_option), threads=threads)
    show = (lambda _: None) if as_json else _show
    try:
        generation = model.stream_to(text, options, system=system, raw=raw, show=show)
    except KeyboardInterrupt:
        # What was printed stays, and the shell's prompt starts on a line of its own.
        if not as_json:
            print(flush=True)
        raise
    _finish(generation, as_json=as_json, stats=stats)
    return 0


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

        # ASCII, so that it means the same whatever the terminal's encoding is.
        print(json.dumps(dataclasses.asdict(generation)))
    else:
        print(flush=True)
    if stats:
        timings = generation.timings
        print(
            f"load {timings.load:.2f} s, prefill {generation.prompt_tokens} tokens in {timings.prefill:.3f} s "
            f"({generation.prefill_tokens_per_second:.0f} tokens/s), "
            f"decode {timings.decode_tokens_per_second:.1f} tokens/s, {len(generation.token_ids)} tokens, "
            f"finish reason: {generation.finish_reason}",
            file=sys.stderr,
        )
