"""Answers the prompts of a file, several at a time: ``triform generate --input``."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from triform.cli.inputs.records import Record, Records
    from triform.runtime.decoder.model import Decoder
    from triform.runtime.decoder.prompt_input import Prompt, PromptOptions
    from triform.runtime.generation.answers import Completion
    from triform.runtime.generation.options.beams import Beams
    from triform.runtime.generation.options.generation import GenerationOptions

# The fields of a JSON object that may hold a prompt.
FIELDS = ("prompt", "messages", "text")


@dataclass(frozen=True)
class GenerationJob:
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

    def settings(self) -> dict[str, object]:
        """The options that answers depend on, by name; the size of a batch is not one."""
        from triform.runtime.generation.options.generation import values_by_name

        return values_by_name(self.options) | vars(self.beams) | dict(self.prompt_options)


def write_answers(
    job: GenerationJob, folder: Path, records: Records, output: Path | None, *, resume: bool, stats: bool
) -> None:
    """Answer each record with one JSON object, in order and in bounded memory.

    Args:
        job: how to answer.
        folder: the model's bundle.
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
    from triform.cli.outputs.run_log import Run

    start, answers, tokens = time.perf_counter(), 0, 0
    with answers_file(output, Run(folder, job.settings()), source=records.file, resume=resume) as file:
        shown = with_progress(records, results_to=output)
        readable = (record for record, _ in records.use(shown, lambda record: job.check(_prompt(record))))
        unanswered = file.remaining(readable, lambda record: record)
        for record, completions in alongside(unanswered, lambda some: job.work(_prompt(record) for record in some)):
            file.write(record, _object(record, completions))
            answers += 1
            tokens += len(completions[0].token_ids)
        # Before the file is renamed: a bad line leaves it unfinished.
        end_inputs(records, None)
    if stats:
        seconds = time.perf_counter() - start
        say(f"{answers} prompts, {tokens} tokens in {seconds:.1f} s ({tokens / seconds:.1f} tokens/s)")


def _prompt(record: Record) -> Prompt:
    return record.text if record.messages is None else record.messages


def _object(record: Record, completions: list[Completion]) -> dict[str, Any]:
    best = completions[0]
    value = {**(record.value or {"prompt": record.text})}
    value |= {"generated_text": best.text, "finish_reason": best.finish_reason, "generated_tokens": len(best.token_ids)}
    if best.score is not None:
        value["score"] = best.score
    if len(completions) > 1:
        value["alternatives"] = [{"generated_text": other.text, "score": other.score} for other in completions[1:]]
    return value
