"""Answers the prompts of a file, several at a time: ``triform generate --input``."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from triform.cli.inputs.records import Record, Records
    from triform.cli.outputs.answers_file import AnswersFile
    from triform.runtime.decoder.model import Decoder
    from triform.runtime.decoder.prompt_input import Prompt, PromptOptions
    from triform.runtime.generation.answers import Completion
    from triform.runtime.generation.options.beams import Beams
    from triform.runtime.generation.options.generation import GenerationOptions

# The fields of a JSON object that may hold a prompt.
FIELDS = ("prompt", "messages", "text")
# The fields that answers add to the object that held the prompt.
_ADDED = ("generated_text", "finish_reason", "generated_tokens", "score", "alternatives")


@dataclass(frozen=True)
class Job:
    """How to answer prompts.

    Attributes:
        model: the decoder that answers.
        options: see `GenerationOptions`.
        beams: see `Beams`.
        batch: prompts to run at once.
        prompt_options: see `Decoder.generate`.
    """

    model: Decoder
    options: GenerationOptions
    beams: Beams
    batch: int
    prompt_options: PromptOptions

    def work(self, prompts: Iterable[Prompt]) -> Iterator[list[Completion]]:
        """The answers to each prompt, the best first."""
        return self.model.generate_all(prompts, self.options, beams=self.beams, batch=self.batch, **self.prompt_options)

    def check(self, prompt: Prompt) -> None:
        """Refuse a prompt that the model cannot read.

        Raises:
            InputError: it is empty, too long, or needs a chat template and the model has none.
        """
        self.model.count_tokens(prompt, **self.prompt_options)


def write_answers(job: Job, records: Records, output: Path | None, *, resume: bool, stats: bool) -> None:
    """Answer each record with one JSON object, in order and in bounded memory.

    Args:
        job: how to answer.
        records: the prompts.
        output: the file to write; standard output when None.
        resume: continue after the answers of an earlier run.
        stats: print the speed to standard error.

    Raises:
        InputError: a prompt is refused, or the file cannot be completions.
    """
    from triform.cli.outputs.answers_file import answers_file
    from triform.cli.outputs.notes import end_inputs, say
    from triform.cli.outputs.progress import alongside, with_progress

    start, answers, tokens = time.perf_counter(), 0, 0
    with answers_file(output, source=records.file, resume=resume) as file:
        shown = with_progress(records, results_to=output)
        readable = (record for record, _ in records.use(shown, lambda record: job.check(_prompt(record))))
        unanswered = _unanswered(readable, file)
        for record, completions in alongside(unanswered, lambda some: job.work(_prompt(record) for record in some)):
            file.write(_object(record, completions))
            answers += 1
            tokens += len(completions[0].token_ids)
        # Before the file is renamed: a bad line leaves it unfinished.
        end_inputs(records, None)
    if stats:
        seconds = time.perf_counter() - start
        say(f"{answers} prompts, {tokens} tokens in {seconds:.1f} s ({tokens / seconds:.1f} tokens/s)")


def _unanswered(records: Iterable[Record], file: AnswersFile) -> Iterator[Record]:
    """The records after those that an earlier run answered."""
    for place, record in enumerate(records, 1):
        if place > file.done:
            yield record
        elif place == file.done:
            file.check_question(_question(record))


def _prompt(record: Record) -> Prompt:
    return record.text if record.messages is None else record.messages


def _question(record: Record) -> dict[str, Any]:
    """The fields of a record that its answer repeats."""
    return {name: value for name, value in (record.value or {"prompt": record.text}).items() if name not in _ADDED}


def _object(record: Record, completions: list[Completion]) -> dict[str, Any]:
    best = completions[0]
    value = {**(record.value or {"prompt": record.text})}
    value |= {"generated_text": best.text, "finish_reason": best.finish_reason, "generated_tokens": len(best.token_ids)}
    if best.score is not None:
        value["score"] = best.score
    if len(completions) > 1:
        value["alternatives"] = [{"generated_text": other.text, "score": other.score} for other in completions[1:]]
    return value
