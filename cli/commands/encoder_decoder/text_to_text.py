"""Options and functions that `translate`, `summarize` and `rewrite` share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Unpack

import typer

if TYPE_CHECKING:
    from pathlib import Path

    from triform.cli.inputs.records import Record, Records
    from triform.runtime.encoder_decoder.ask import Ask
    from triform.runtime.encoder_decoder.model import EncoderDecoder
    from triform.runtime.generation.answers import Completion
    from triform.runtime.generation.options.beams import Beams
    from triform.runtime.generation.options.generation import GenerationOptions
    from triform.runtime.generation.setup import Settled
    from triform.runtime.opening import LoadOptions
    from triform.runtime.text.documents import Line, Splitter

Task = Annotated[str | None, typer.Option(help="The name of one of the model's tasks; `inspect --json` lists them.")]
Prefix = Annotated[str | None, typer.Option(help="Put this prefix before each text, instead of a task's.")]
Batch = Annotated[int, typer.Option(help="Texts to run at once.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object per text.")]


@dataclass(frozen=True)
class Job:
    """How to process texts.

    Attributes:
        model: the encoder-decoder.
        options: see `GenerationOptions`.
        ask: see `Ask`.
        beams: see `Beams`.
        batch: texts to run at once.
        key: the name of the result in JSON; None to print plain text.

    Raises:
        InputError: the batch is empty.
    """

    model: EncoderDecoder
    options: GenerationOptions
    ask: Ask
    beams: Beams
    batch: int
    key: str | None

    def __post_init__(self) -> None:
        from triform.cli.arguments.bundle import at_least_one

        at_least_one("--batch", self.batch)

    def work(self, texts: Iterable[str]) -> Iterator[list[Completion]]:
        """Answers to each text, the best first."""
        return self.model.generate_all(texts, self.options, ask=self.ask, beams=self.beams, batch=self.batch)

    @property
    def streams(self) -> bool:
        """Whether the answer to a single text can be streamed: without a search, and not as JSON."""
        return self.key is None and self.settled.search is None

    @property
    def longest_answer(self) -> int:
        """The most tokens of an answer."""
        return self.settled.row([self.model.info.decoder_start]).limit

    @cached_property
    def settled(self) -> Settled:
        """The settled options for every answer."""
        return self.model.settle(self.options, ask=self.ask, beams=self.beams)


def load(folder: Path, *, strict: bool, **loading: Unpack[LoadOptions]) -> EncoderDecoder:
    """Open an encoder-decoder bundle that reads texts.

    Raises:
        UnsupportedError: it is for something else.
    """
    from triform.runtime.encoder_decoder.splitting import check_reads_texts
    from triform.runtime.opening import load_encoder_decoder

    model = load_encoder_decoder(folder, strict=strict, **loading)
    check_reads_texts(model)
    return model


def chosen(task: str | None, prefix: str | None, otherwise: Callable[[], Ask]) -> Ask:
    """The task or prefix of --task and --prefix; without either, the result of `otherwise`.

    Raises:
        InputError: both are given.
    """
    from triform.runtime.encoder_decoder.ask import Ask
    from triform.runtime.errors import InputError

    if task is not None and prefix is not None:
        raise InputError("--task brings its own prefix; leave --task or --prefix out")
    return otherwise() if task is None and prefix is None else Ask(task, prefix)


def write_lines(job: Job, records: Records, cut: Callable[[str, int], list[Line]]) -> None:
    """Process each record and print the result, in order and in bounded memory.

    Args:
        job: what to do.
        records: the texts; blank ones stay as they are, unless they are arguments.
        cut: splits a text into lines.

    Raises:
        InputError: an argument is blank, or several answers are requested for a text in several pieces.
    """
    from triform.cli.outputs.progress import with_results
    from triform.runtime.errors import InputError
    from triform.runtime.text.documents import in_pieces

    for number, text in enumerate(records.texts, 1):
        if not text.strip():
            raise InputError(f"text {number} is empty")
    if job.streams and len(records.texts) == 1:
        stream(job, cut(records.texts[0], 1))
        return
    for record, (lines, answers) in with_results(records, lambda texts: in_pieces(texts, cut, job.work)):
        show(job, record, lines, answers)


def show(job: Job, record: Record, lines: Sequence[Line], answers: Sequence[Sequence[Completion]]) -> None:
    """Print the answers to one record.

    Args:
        job: how it was processed.
        record: the text.
        lines: its lines and their pieces.
        answers: to each piece.

    Raises:
        InputError: several answers are wanted of a text in several pieces.
    """
    from triform.runtime.errors import InputError
    from triform.runtime.text.documents import put_together

    several = (job.beams.num_return_sequences or 1) > 1
    if several and len(answers) > 1:
        raise InputError(
            f"text {record.number} is split into {len(answers)} parts; --num-return-sequences needs shorter texts"
        )
    ways = len(answers[0]) if several and answers else 1
    texts = [put_together(lines, [answer[way].text for answer in answers]) for way in range(ways)]
    if job.key is not None:
        _print_json(job.key, record, texts, [list(answer[:ways]) for answer in answers])
    elif several and answers:
        for text, completion in zip(texts, answers[0], strict=True):
            print(f"{completion.score:.4f}\t{_one_line(text)}")
    else:
        print(texts[0])


def say_cut(job: Job, records: Records | None, splitter: Splitter | None) -> None:
    """Note how many texts or sentences were truncated, and lines skipped, if any."""
    from triform.cli.outputs.notes import end_inputs, say_truncated

    end_inputs(records, None)
    text = job.model.text
    say_truncated(text.truncated, "text", text.max_length)
    if splitter is not None:
        say_truncated(splitter.cut, "sentence", text.max_length)


def stream(job: Job, lines: Sequence[Line]) -> None:
    """Process one text and stream the answer.

    Args:
        job: what to do, with a single beam.
        lines: of the text.
    """
    from triform.runtime.text.documents import joint

    try:
        for line in lines:
            _show(line.before)
            end = ""
            for index, piece in enumerate(line.pieces):
                _show(joint(end) if index else "")
                for part in job.model.stream(piece, job.options, ask=job.ask):
                    _show(part.text)
                    end = part.text or end
            _show(line.after)
    finally:
        # The shell's prompt starts on a new line after what was printed.
        print(flush=True)


def _show(text: str) -> None:
    if text:
        sys.stdout.write(text)
        sys.stdout.flush()


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _print_json(key: str, record: Record, texts: Sequence[str], answers: Sequence[Sequence[Completion]]) -> None:
    import json

    value: dict[str, Any] = {**(record.value or {"text": record.text}), key: texts[0]}
    if answers:
        ended = all(answer[0].finish_reason == "stop" for answer in answers)
        value["finish_reason"] = "stop" if ended else "length"
    if len(answers) == 1 and answers[0][0].score is not None:
        value["score"] = answers[0][0].score
    if len(texts) > 1:
        value["alternatives"] = [
            {"text": text, "score": completion.score}
            for text, completion in zip(texts[1:], answers[0][1:], strict=True)
        ]
    # ASCII, so that it means the same whatever the terminal's encoding is.
    print(json.dumps(value))
