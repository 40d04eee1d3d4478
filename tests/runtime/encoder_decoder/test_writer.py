"""The order and the batches of many sources, on a stand-in that answers with the lengths of what runs together."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from triform.runtime.encoder_decoder import writer as module
from triform.runtime.encoder_decoder.ask import Ask
from triform.runtime.encoder_decoder.writer import SourceWriter
from triform.runtime.errors import BundleError, InputError, UnsupportedError
from triform.runtime.generation.answers import Completion, Piece


class Writer(SourceWriter):
    """Texts are as many tokens as they have characters; an answer is its row, and the lengths in its batch."""

    def __init__(self, source="text"):
        self.info = SimpleNamespace(source=source, decoder_start=7, tasks={}, text=SimpleNamespace(vocabulary=None))
        self._bundle = SimpleNamespace(folder="some/bundle", manifest=SimpleNamespace(vocab_size=5, tokens=None))
        self.text = SimpleNamespace(
            forced=lambda target: [], read=lambda texts, first, **_: [[1] * len(text) for text in texts]
        )
        self.reader = SimpleNamespace(read=lambda arrays: arrays)
        self.asked = []

    def _settled(self, options, ask, beams, *, several=False):
        settled = SimpleNamespace(search=None)
        settled.row = lambda ids, index, encoder_ids: (ids, index, None if encoder_ids is None else len(encoder_ids))
        self.asked.append((options, ask, several))
        return settled

    def _read(self, rows):
        return [len(row) for row in rows]

    def _write(self, encoded, settled, rows):
        return [[(row, encoded)] for row in rows]


def answers(texts, batch, **changes):
    return [answer for (answer,) in Writer(**changes).generate_all(texts, batch=batch)]


def test_texts_of_similar_length_run_together_and_come_in_their_order():
    found = answers(["ccc", "a", "ee ee", "bb", "dddd"], 2)
    # The seed's number is the place among all, from 0 on.
    assert [row for row, _ in found] == [([7], 0, 3), ([7], 1, 1), ([7], 2, 5), ([7], 3, 2), ([7], 4, 4)]
    assert [lengths for _, lengths in found] == [[3, 2], [1], [5, 4], [3, 2], [5, 4]]
    assert [lengths for _, lengths in answers(["a", "b", "c"], 3)] == [[1, 1, 1]] * 3


def test_windows_of_many_texts(monkeypatch):
    """Only texts of one window are sorted, and their numbers go on."""
    monkeypatch.setattr(module, "_WINDOW", 3)
    found = answers(iter(["a", "bb", "ccc", "dddd", "e"]), 2)
    assert [row[1:] for row, _ in found] == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 1)]
    assert [lengths for _, lengths in found] == [[1], [3, 2], [3, 2], [4, 1], [4, 1]]


def test_nothing_is_read_before_it_is_asked_for():
    read = []

    def texts():
        for text in ("a", "b"):
            read.append(text)
            yield text

    writer = Writer()
    found = writer.generate_all(texts())
    # Options are checked at once.
    assert read == [] and len(writer.asked) == 1 and writer.asked[0][2] is True
    assert len(list(found)) == 2
    assert list(writer.generate_all([])) == []


@pytest.mark.parametrize("batch", [0, -1, 1.5])
def test_the_size_of_a_batch(batch):
    with pytest.raises(InputError, match=r"^`batch` must be"):
        Writer().generate_all(["a"], batch=batch)


@pytest.mark.parametrize(("texts", "number"), [(["", "a"], 1), (["a", " \n"], 2)])
def test_empty_texts_are_numbered(texts, number, monkeypatch):
    with pytest.raises(InputError, match=f"^text {number} is empty$"):
        answers(texts, 2)
    monkeypatch.setattr(module, "_WINDOW", 1)
    with pytest.raises(InputError, match=f"^text {number} is empty$"):
        answers(texts, 2)


def test_models_that_read_something_else():
    with pytest.raises(UnsupportedError, match=r"^some/bundle reads image, not texts$"):
        answers(["a"], 2, source="image")


def test_rows_of_sources_that_are_no_texts():
    found = Writer().write({"pixel_values": np.zeros((3, 1))}, first=4)
    assert [row for ((row, _),) in found] == [([7], 4, None), ([7], 5, None), ([7], 6, None)]


@pytest.mark.parametrize(("vocabulary", "size"), [(None, 5), (4, 5), (9, 9)])
def test_the_larger_vocabulary_counts(vocabulary, size):
    writer = Writer()
    writer.info.text.vocabulary = vocabulary
    assert writer._source_vocabulary() == size


def test_a_bundle_without_its_part():
    bundle = SimpleNamespace(manifest=SimpleNamespace(encoder_decoder=None), folder="some/bundle")
    with pytest.raises(
        BundleError, match=r"^some/bundle: the manifest lacks its encoder-decoder part; export the model"
    ):
        SourceWriter(bundle)


def test_an_ask_is_passed_on():
    writer, ask = Writer(), Ask(target_lang="de")
    list(writer.generate_all(["a"], ask=ask))
    assert writer.asked[0][1] is ask


class Answering(Writer):
    """One whose answers are pieces, or come of a search for the best one, and name the row that they are for."""

    _load_seconds = 0.25

    def __init__(self, search=None):
        super().__init__()
        self.search = search
        self.text.read = lambda texts, first, **asked: self.read.append((texts, first, asked)) or [[1] * len(texts[0])]
        self.reader.batch_step = lambda encoded: ("step", encoded)
        self.read = []

    def _settled(self, options, ask, beams, *, several=False):
        settled = super()._settled(options, ask, beams, several=several)
        settled.search = self.search
        return settled

    def pieces(self, encoded, row, watch=None):
        if watch is not None:
            watch.note()
        return iter([Piece(f"{encoded} {row}", (1,), "stop")])


def test_one_text_alone(monkeypatch):
    """Its numbers at random are those of the first text; the source's tokens are counted."""
    ask, writer = Ask(source_lang="en", target_lang="de"), Answering()
    found = writer.generate("abc", ask=ask)
    assert (found.text, found.prompt_tokens, found.timings.load) == ("[3] ([7], 0, 3)", 3, 0.25)
    assert [(asked, several) for _, asked, several in writer.asked] == [(ask, False)]
    assert writer.read == [(["abc"], 1, {"source_lang": "en", "target_lang": "de"})]
    best, given = Completion("best", (4, 5), "length", -1.0), []

    def search(step, row, settled, watch):
        watch.note()
        given.append((step, row, settled.search))
        return best

    monkeypatch.setattr(module, "best_answer", search)
    assert Answering("beams").generate("abc").text == "best"
    assert given == [(("step", [3]), ([7], 0, 3), "beams")]


@pytest.mark.parametrize("ask", [None, Ask(source_lang="en", target_lang="de")])
def test_a_stream_of_pieces(ask):
    writer, meant = Answering(), ask or Ask()
    (piece,) = writer.stream("abcd", ask=ask)
    assert piece.text == "[4] ([7], 0, 4)"
    assert [(asked, several) for _, asked, several in writer.asked] == [(meant, False)]
    assert writer.read == [(["abcd"], 1, {"source_lang": meant.source_lang, "target_lang": meant.target_lang})]
    # The number of an empty text is the first.
    with pytest.raises(InputError, match=r"^text 1 is empty$"):
        writer.stream(" ")


def test_several_sources_that_are_no_texts_are_settled_as_several():
    writer = Writer()
    found = writer.write({"pixel_values": np.zeros((2, 1))})
    assert [row for ((row, _),) in found] == [([7], 0, None), ([7], 1, None)] and writer.asked[0][2] is True


def test_eight_texts_run_at_once_unless_it_is_said_otherwise():
    found = [lengths for ((_, lengths),) in Writer().generate_all(["a"] * 9)]
    assert list(map(len, found)) == [8] * 8 + [1]


@pytest.mark.parametrize(("longest", "cut"), [(77, 77), (None, 16384)])
def test_how_long_a_text_may_be(monkeypatch, longest, cut):
    """A model without a limit of its own reads 16384 tokens. What is longer is cut where the tokenizer names."""

    class Read(Exception):
        pass

    def text(folder, info, most, vocabulary, *, strict, truncation_side):
        raise Read(most, vocabulary, strict, truncation_side)

    monkeypatch.setattr(module, "SourceText", text)
    info = SimpleNamespace(text=SimpleNamespace(vocabulary=9), max_source_length=longest)
    manifest = SimpleNamespace(encoder_decoder=info, vocab_size=5)
    tokenizer = SimpleNamespace(truncation_side="left")
    for strict in ({}, {"strict": True}):
        with pytest.raises(Read) as read:
            SourceWriter(SimpleNamespace(manifest=manifest, folder="some/bundle", tokenizer=tokenizer), **strict)
        assert read.value.args == (cut, 9, bool(strict), "left")
