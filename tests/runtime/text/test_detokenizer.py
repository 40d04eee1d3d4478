"""Text that streams equals decoding the whole, with every kind of decoder that models have; so do stop strings."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.helpers.small_tokenizers import MAKERS, TEXTS, cleaned_up, random_ids
from triform.runtime.text.detokenizer import IncrementalDetokenizer
from triform.runtime.text.stop_strings import TextStops
from triform.runtime.text.tokenizer import load_tokenizer

KINDS = [*MAKERS, "cleaned up"]
# The tokenizer is the same for all examples of a test.
RANDOM = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    made = {name: make() for name, make in MAKERS.items()}
    return made | {"cleaned up": cleaned_up(tmp_path_factory.mktemp("cleaned-up"))}


@pytest.fixture(params=KINDS)
def tokenizer(request, tokenizers):
    return tokenizers[request.param]


def streamed(tokenizer, ids):
    detokenizer = IncrementalDetokenizer(tokenizer)
    return [*(detokenizer.push(token) for token in ids), detokenizer.flush()]


def check_stream(tokenizer, ids):
    pieces = streamed(tokenizer, ids)
    assert "".join(pieces) == tokenizer.decode(ids, skip_special_tokens=True)
    for piece in pieces:
        piece.encode("utf-8")
    # What was shown after a token is shown whatever follows it, so it must be a beginning of what ends there.
    shown = itertools.accumulate(pieces[:-1])
    for end, text in enumerate(shown, 1):
        assert tokenizer.decode(ids[:end], skip_special_tokens=True).startswith(text)


@RANDOM
@given(text=TEXTS)
def test_pieces_of_any_text_join_to_the_whole(tokenizer, text):
    check_stream(tokenizer, tokenizer.encode(text).ids)


@RANDOM
@given(data=st.data())
def test_pieces_of_random_tokens_join_to_the_whole(tokenizer, data):
    check_stream(tokenizer, data.draw(random_ids(tokenizer)))


@pytest.mark.parametrize("end", ["<0xC3>", "<s>"])
def test_what_follows_unfinished_bytes_changes_them(tokenizers, end):
    llama = tokenizers["llama"]
    ids = [llama.token_to_id(token) for token in ("a", "<0xC3>", "<0xA9>", end)]
    # Two bytes that are a character stop being one where a third is none; a special token changes nothing.
    expected = "a\u00e9" if end == "<s>" else "a\ufffd\ufffd\ufffd"
    assert streamed(llama, ids) == ["a", "", "", "", expected[1:]]


def test_what_is_closed_up_late_is_shown_late(tokenizers):
    cleaned = tokenizers["cleaned up"]
    ids = [cleaned.token_to_id(token) for token in ("do", "n", "'", "t", "not", "'", "'", "do")]
    # " n ' t" becomes " n't" when " ' " is closed up, and then "n't"; of " ' ' do" only the first is.
    assert cleaned.decode(ids) == "don't not'' do"
    assert streamed(cleaned, ids) == ["do", "", "", "n't", " not", "", "''", " do", ""]


@pytest.mark.parametrize("kind", KINDS)
def test_plain_text_is_not_held_back(tokenizers, kind):
    tokenizer = tokenizers[kind]
    pieces = streamed(tokenizer, tokenizer.encode("the a a the the a the", add_special_tokens=False).ids)
    assert not pieces[-1]
    assert sum(map(bool, pieces)) >= 6


def test_where_the_tokenizer_holds_back_all_text_comes_at_the_end():
    class Reversed:
        """Its text begins with the last token, so that nothing is certain before the end."""

        holds_back = True

        def decode(self, ids, skip_special_tokens):
            return "".join(chr(token) for token in reversed(ids))

        def id_to_token(self, token):
            return chr(token)

    assert streamed(Reversed(), [97, 98, 99]) == ["", "", "", "cba"]


def first_with(tokenizer, ids, stop):
    """The fewest tokens whose text contains the stop string, or None."""
    ends = range(len(ids) + 1)
    return next((end for end in ends if stop in tokenizer.decode(ids[:end], skip_special_tokens=True)), None)


@RANDOM
@given(data=st.data())
def test_a_stop_string_is_found_at_the_token_that_completes_it(tokenizer, data):
    ids = data.draw(random_ids(tokenizer) | TEXTS.map(lambda text: tokenizer.encode(text).ids))
    whole = tokenizer.decode(ids, skip_special_tokens=True)
    start = data.draw(st.integers(0, len(whole)))
    stop = whole[start : start + data.draw(st.integers(1, 5))].split("\ufffd")[0] or "zz"
    end, watch = first_with(tokenizer, ids, stop), TextStops(tokenizer, [stop])
    assert [watch(token) for token in ids] == [end is not None and place >= end for place in range(1, len(ids) + 1)]


@RANDOM
@given(data=st.data())
def test_what_is_shown_ends_before_the_stop_string(tokenizer, data):
    ids = data.draw(random_ids(tokenizer))
    stops = data.draw(st.lists(st.text(alphabet="a tn'.", min_size=1, max_size=3), max_size=3))
    ends = [end for stop in stops if (end := first_with(tokenizer, ids, stop)) is not None]
    watch, shown = TextStops(tokenizer, stops), ""
    for token in ids:
        shown += watch.push(token)
        if watch.found:
            break
    text = tokenizer.decode(ids[: min(ends, default=len(ids))], skip_special_tokens=True)
    found = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    assert watch.found == bool(ends)
    assert shown + watch.flush() == (text[: min(found)[1]] if found else text)


def test_a_stop_string_of_bytes_needs_no_further_token(tokenizers):
    llama = tokenizers["llama"]
    watch = TextStops(llama, ["\n"])
    assert [watch.push(llama.token_to_id(token)) for token in ("a", "<0x0A>")] == ["a", ""]
    assert watch.found


def test_an_unfinished_character_is_no_stop_string(tokenizers):
    llama, byte_level = tokenizers["llama"], tokenizers["byte-level"]
    for tokenizer, ids in ((llama, [0xE4, 0xB8, 0xAD]), (byte_level, byte_level.encode("\u4e2d").ids)):
        assert len(ids) > 1
        watch = TextStops(tokenizer, ["\ufffd"])
        assert not any(watch(token) for token in ids)


def test_a_real_vocabulary(real_bundle):
    tokenizer = load_tokenizer(real_bundle / "tokenizer.json")

    @RANDOM
    @given(random_ids(tokenizer) | st.text(max_size=40).map(lambda text: tokenizer.encode(text).ids))
    def check(ids):
        check_stream(tokenizer, ids)

    check()
