"""The examples run, and leave what they promise."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from transformers import AutoTokenizer

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def g2p() -> dict[str, object]:
    """What examples/train_g2p.py defines."""
    return runpy.run_path(str(EXAMPLES / "train_g2p.py"))


@pytest.fixture(scope="module")
def dictionary(g2p) -> dict[str, list[tuple[str, ...]]]:
    return g2p["read_dictionary"]()


@pytest.mark.parametrize(("first", "second", "distance"), [("kitten", "sitting", 3), ("", "abc", 3), ("ab", "ba", 2)])
def test_edit_distance(g2p, first, second, distance):
    assert g2p["edit_distance"](first, second) == distance


def test_no_word_is_both_trained_on_and_scored(g2p, dictionary):
    train_words, held_out = g2p["split"](dictionary)
    assert len(held_out) == 2000
    assert sorted(train_words + held_out) == sorted(dictionary)
    assert (train_words, held_out) == g2p["split"](dict(reversed(dictionary.items())))


def test_words_have_all_their_pronunciations_the_usual_first(dictionary):
    assert dictionary["tomato"] == [tuple("T AH M EY T OW".split()), tuple("T AH M AA T OW".split())]
    assert dictionary["don't"] == [tuple("D OW N T".split()), tuple("D OW N".split())]


def test_a_short_training_leaves_a_checkpoint(g2p, dictionary, tmp_path, capsys):
    folder = tmp_path / "g2p"
    options = ["--limit", "64", "--threads", "1"]
    first = g2p["main"](["--out", str(folder), "--steps", "30", *options])
    again = g2p["main"](["--score", str(folder), *options])
    assert again == first
    assert capsys.readouterr().out.count("phoneme error rate") == 2

    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.convert_ids_to_tokens(tokenizer("Don't").input_ids) == ["d", "o", "n", "'", "t", "</s>"]
    phonemes = dictionary["tomato"][0]
    assert tokenizer.decode(tokenizer.convert_tokens_to_ids(phonemes)) == "T AH M EY T OW"
    known = {phoneme for ways in dictionary.values() for way in ways for phoneme in way}
    for answer in g2p["pronounce_with_transformers"](folder, ["tomato", "don't"]):
        assert answer
        assert set(answer.split()) <= known
