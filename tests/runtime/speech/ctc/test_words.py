"""Words and their frames equal those of transformers' Wav2Vec2CTCTokenizer."""

from __future__ import annotations

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import WordLevel
from transformers import Wav2Vec2CTCTokenizer

from tests.checkpoints.ctc import TOKENS, save_ctc_tokenizer
from triform.export.tokenization.ctc import save_ctc_tokenizer as write_tokenizer
from triform.runtime.speech.ctc.decoding import GreedyDecoder
from triform.runtime.speech.ctc.words import Pieces, _time, segments

SIZE = len(TOKENS)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("letters")
    save_ctc_tokenizer(folder)
    return Wav2Vec2CTCTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def pieces(original, tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    assert write_tokenizer(original, SIZE, folder, "letters") == 0
    return Pieces(Tokenizer.from_file(str(folder / "tokenizer.json")), SIZE)


def _segments(frames, pieces):
    decoder = GreedyDecoder(0)
    tokens = [*decoder.feed(np.eye(SIZE, dtype=np.float32)[frames]), *decoder.finish()]
    return list(segments(tokens, pieces, 0.02, 0.0, words=True))


@pytest.mark.parametrize("seed", range(6))
def test_words_and_their_frames(original, pieces, seed):
    generator = np.random.default_rng(seed)
    frames = generator.choice([0, 4, *range(5, SIZE)], 120).repeat(generator.integers(1, 4, 120))
    expected = original.decode(frames, output_word_offsets=True)
    found = _segments(frames, pieces)
    assert "".join(segment.text for segment in found).strip() == expected.text
    words = [(word.text.strip(), word.start, word.end) for segment in found for word in segment.words]
    assert words == [
        (word["word"], round(word["start_offset"] * 0.02, 3), round(word["end_offset"] * 0.02, 3))
        for word in expected.word_offsets
    ]


@pytest.mark.parametrize("begin", [0, 340])
def test_a_segment_ends_at_a_pause(pieces, begin):
    """Of a second, 50 frames of 0.02 s; wherever in the recording it is."""
    said = [*[0] * begin, 5, 6, 4, 7]
    assert [segment.text for segment in _segments([*said, *[0] * 48, 4, 8], pieces)] == ["ET A O"]
    assert [segment.text for segment in _segments([*said, *[0] * 49, 4, 8], pieces)] == ["ET A", " O"]


def test_special_tokens_are_written(original, pieces):
    """As transformers does, unless it is told not to; the blank is none of them."""
    frames = [5, 1, 6, 2, 4, 3, 3, 7]
    expected = original.decode(frames, output_word_offsets=True)
    (segment,) = _segments(frames, pieces)
    assert segment.text == expected.text and "<unk>" in segment.text
    words = [(word.text.strip(), round(word.start / 0.02), round(word.end / 0.02)) for word in segment.words]
    assert words == [(word["word"], word["start_offset"], word["end_offset"]) for word in expected.word_offsets]


def test_what_a_tokenizer_calls_special_is_written_too():
    """transformers' pipeline for CTC decodes with ``skip_special_tokens=False``."""
    tokenizer = Tokenizer(WordLevel({"<s>": 0, "a": 1, "b": 2}, "<s>"))
    tokenizer.decoder = Fuse()
    tokenizer.add_special_tokens(["<s>"])
    pieces = Pieces(tokenizer, 3)
    assert [pieces.of(token) for token in (0, 1, 2)] == ["<s>", "a", "b"]
    assert pieces.joined([2, 0, 1]) == "b<s>a"


def test_spaces_at_the_beginning_and_in_a_row(original, pieces):
    frames = [4, 0, 4, 5, 4, 0, 4, 0, 4, 6, 4, 0, 4]
    (segment,) = _segments(frames, pieces)
    words = [(word.text.strip(), round(word.start / 0.02), round(word.end / 0.02)) for word in segment.words]
    expected = original.decode(frames, output_word_offsets=True).word_offsets
    assert words == [(word["word"], word["start_offset"], word["end_offset"]) for word in expected if word["word"]]


def test_a_word_without_spaces_is_not_longer_than_seven_seconds(pieces):
    """350 frames in two letters, and one frame more."""
    said = [5] * 340 + [6] * 10
    for more, words in (([], ["ET"]), ([6], ["E", "T"])):
        found = _segments([*said, *more], pieces)
        assert [word.text for segment in found for word in segment.words] == words


class Syllables:
    """Texts of tokens, of which some end with a space, as in tokenizers that write it behind a word."""

    texts = ("", "ka", "to ", "mi", "n ")

    def of(self, token):
        return self.texts[token]

    def joined(self, tokens):
        return "".join(map(self.of, tokens))


def test_a_space_at_the_end_of_a_token_ends_a_word():
    decoder = GreedyDecoder(0)
    tokens = [*decoder.feed(np.eye(5, dtype=np.float32)[[1, 2, 3, 4, 1]]), *decoder.finish()]
    (segment,) = segments(tokens, Syllables(), 0.02, 0.0, words=True)
    assert [(word.text, round(word.start / 0.02)) for word in segment.words] == [("kato ", 0), ("min ", 2), ("ka", 4)]


def test_a_segment_is_not_longer_than_seven_seconds(pieces):
    """350 frames of 0.02 s in seven words, and one frame more."""
    said = [5] * 50 + ([4] + [6] * 49) * 6
    ((start, end),) = [(segment.start, segment.end) for segment in _segments(said, pieces)]
    assert (start, end) == (0, 7)
    first, second = _segments([*said, 6], pieces)
    assert (first.end, second.start, second.end) == (6.0, 6.02, 7.02)


def test_how_sure_a_segment_and_a_word_are(pieces):
    """Letters with the probabilities 1/2 and 1/4, and the space after them with 1/8."""
    log_probs = np.full((3, SIZE), -20, np.float32)
    for frame, (token, probability) in enumerate([(5, 0.5), (6, 0.25), (4, 0.125)]):
        log_probs[frame, token] = np.log(probability)
    decoder = GreedyDecoder(0)
    tokens = [*decoder.feed(log_probs), *decoder.finish()]
    (segment,) = segments(tokens, pieces, 0.02, 1.5, words=True)
    (word,) = segment.words
    assert word.probability == pytest.approx(0.375)
    assert (word.start, word.end) == (segment.start, segment.end) == (1.5, 1.54)
    assert segment.avg_logprob == pytest.approx(np.log([0.5, 0.25]).mean(), rel=1e-5)


def test_times_are_whole_milliseconds():
    """Of frames of 20 ms that begin 1/3 s into a recording."""
    assert [_time(frames, 0.02, 1 / 3) for frames in (0, 1, 50)] == [0.333, 0.353, 1.333]
