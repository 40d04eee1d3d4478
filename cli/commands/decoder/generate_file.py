"""Prompts of a file, answered several at a time: what ``triform generate --input`` does."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import tee
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from triform.cli.inputs.records import Record, Records
    from triform.runtime.decoder.model import Decoder
    from triform.runtime.decoder.prompt import Prompt, Tools
    from triform.runtime.generation.answers import Written
    from triform.runtime.generation.options.beams import Beams
    from triform.runtime.generation.options.generation import GenerationOptions

# Where in a JSON object a prompt is looked for.
FIELDS = ("prompt", "messages", "text")


@dataclass(frozen=True)
class Job:
    """What is to be done with prompts.

    Attributes:
        model: that answers.
        options: see `GenerationOptions`.
        beams: see `Beams`.
        batch: prompts to run at once.
        system: see `Decoder.generate`.
        raw: see `Decoder.generate`.
        tools: see `Decoder.generate`.
    """

    model: Decoder
    options: GenerationOptions
    beams: Beams
    batch: int
    system: str | None
    raw: bool
    tools: Tools | None

    def work(self, prompts: Iterable[Prompt]) -> Iterator[list[Written]]:
        """The answers to each prompt, the best first."""
        return self.model.generate_all(
            prompts,
            self.options,
            beams=self.beams,
            batch=self.batch,
            system=self.system,
            raw=self.raw,
            tools=self.tools,
        )

    def check(self, prompt: Prompt) -> None:
        """Refuse a prompt that the model cannot read.

        Raises:
            InputError: it is empty, too long, or needs a chat template that is not there.
        """
        self.model.count_tokens(prompt, system=self.system, raw=self.raw, tools=self.tools)


def write_answers(job: Job, records: Records, output: Path | None, *, stats: bool) -> None:
    """Answer each record with one JSON object, in order and in bounded memory.

    Args:
        job: what to do.
        records: the prompts.
        output: the file to write; standard output when None.
        stats: say on standard error how fast it was.

    Raises:
        InputError: a prompt is refused, or the file cannot be written.
    """
    from triform.cli.outputs.notes import say_left_out
    from triform.cli.outputs.progress import with_progress

    start, answers, tokens = time.perf_counter(), 0, 0
    with _lines_to(output, records.file) as file:
        first, second = tee(_readable(job, with_progress(records, results_to=output), records))
        found = job.work(_prompt(record) for record in first)
        # In this order, so that a record is not read only to find that there is no answer to come.
        for written, record in zip(found, second, strict=False):
            file.write(json.dumps(_object(record, written)) + "\n")
            file.flush()
            answers += 1
            tokens += len(written[0].token_ids)
    say_left_out(records, None)
    if stats:
        seconds = time.perf_counter() - start
        print(
            f"{answers} prompts, {tokens} tokens in {seconds:.1f} s ({tokens / seconds:.1f} tokens/s)", file=sys.stderr
        )


def _prompt(record: Record) -> Prompt:
    return record.text if record.messages is None else record.messages


def _readable(job: Job, found: Iterator[Record], records: Records) -> Iterator[Record]:
    """The records that the model can answer; the others are counted, or end it all."""
    from triform.runtime.errors import InputError

    for record in found:
        try:
            job.check(_prompt(record))
        except InputError as error:
            if not records.skip_errors:
                raise InputError(f"{records.place(record.number)}: {error}; --skip-errors goes on without it") from None
            records.skipped += 1
        else:
            yield record


def _object(record: Record, written: list[Written]) -> dict[str, Any]:
    best = written[0]
    value = {**(record.value or {"prompt": record.text})}
    value |= {"generated_text": best.text, "finish_reason": best.finish_reason, "generated_tokens": len(best.token_ids)}
    if best.score is not None:
        value["score"] = best.score
    if len(written) > 1:
        value["alternatives"] = [{"generated_text": one.text, "score": one.score} for one in written[1:]]
    return value


@contextlib.contextmanager
def _lines_to(output: Path | None, source: Path | None) -> Iterator[TextIO]:
    """Where to write lines as they come: a file that takes its name when all are there; until then another's."""
    from triform.runtime.errors import InputError

    if output is None:
        yield sys.stdout
        return
    if output.exists() and (
        not output.is_file() or (source is not None and source.exists() and output.samefile(source))
    ):
        raise InputError(f"{output} cannot be written: it is {'the input' if output.is_file() else 'not a file'}")
    unfinished = output.with_name(output.name + ".part")
    try:
        file = unfinished.open("w", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{output} cannot be written: {error.strerror}") from None
    try:
        with file:
            yield file
    except BaseException:
        if unfinished.stat().st_size:
            print(f"note: the answers up to here are in {unfinished}", file=sys.stderr)
        else:
            unfinished.unlink()
        raise
    os.replace(unfinished, output)
