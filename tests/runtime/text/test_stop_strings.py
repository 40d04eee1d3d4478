"""Stop strings in pieces of text against str.find on the whole."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from triform.runtime.text.stop_strings import StopStrings

LETTERS = st.text(alphabet="ab\u00e9\n", max_size=30)


def expected(text, stops):
    """The text before the stop string that is complete first, of several that end together the longest; else all."""
    found = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    return text[: min(found)[1]] if found else text


@settings(max_examples=500)
@given(LETTERS, st.lists(st.text(alphabet="ab\u00e9\n", min_size=1, max_size=4), max_size=3), st.data())
def test_pieces_join_to_what_is_before_the_first_stop_string(text, stops, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    watch, shown = StopStrings(stops), ""
    for index, piece in enumerate(pieces):
        shown += watch.push(piece)
        seen = "".join(pieces[: index + 1])
        # Nothing of a stop string was shown, nothing is held back that no stop string can begin with.
        assert expected(seen, stops).startswith(shown)
        held = expected(seen, stops)[len(shown) :]
        assert not held or any(stop.startswith(held) and stop != held for stop in stops)
        assert watch.found == any(stop in seen for stop in stops)
    shown += watch.flush()
    assert shown == expected(text, stops)


def test_text_after_the_stop_string_is_gone():
    watch = StopStrings(["<end>"])
    assert [watch.push(piece) for piece in ("a<", "e", "nd", "> b", "c")] == ["a", "", "", "", ""]
    assert watch.found
    assert watch.flush() == ""


def test_a_beginning_that_leads_nowhere_is_shown_late():
    watch = StopStrings(["<end>"])
    assert [watch.push(piece) for piece in ("a<", "en", "x", "<e")] == ["a", "", "<enx", ""]
    assert (watch.found, watch.flush()) == (False, "<e")
