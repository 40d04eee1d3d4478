"""`triform translate`, `summarize` and `rewrite` from the outside, against transformers running the same checkpoint."""

from __future__ import annotations

import io
import json
import sys

import pytest

from tests.checkpoints.encoder_decoder_families import READS, TASKS
from tests.helpers.commands import one_line
from triform.runtime.encoder_decoder.ask import Ask
from triform.runtime.generation.options.beams import BeamOptions, Beams
from triform.runtime.generation.options.generation import GenerationOptions
from triform.runtime.opening import load_encoder_decoder

SENTENCES = [
    "The ferry left the harbor before dawn.",
    "Nobody in the village had seen a winter like that one.",
    "What did she say?",
    "The museum is open from nine to five, and closed on Mondays!",
    "There is an old argument about mathematics.",
]
LONG = " ".join(SENTENCES)
TEXTS = [SENTENCES[0], SENTENCES[2], "a", SENTENCES[1]]
TO_FRENCH = ("--target-lang", "fr")


def task(name):
    """The prefix of a task and its settings, as `generate` takes them."""
    settings = dict(TASKS[name])
    return settings.pop("prefix"), settings


def french(written, text, **more):
    prefix, settings = task("translation_en_to_fr")
    return written(prefix + text, **{"num_beams": 1, **settings, **more})


@pytest.fixture
def typed(monkeypatch):
    def write(text):
        stream = io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8")
        monkeypatch.setattr(sys, "stdin", stream)

    return write


def test_translate_uses_the_task_of_the_languages(call, t5, written):
    prefix, settings = task("translation_en_to_de")
    for languages in (("--source-lang", "en", "--target-lang", "de"), ("--target-lang", "DE")):
        code, out, err = call("translate", t5, *TEXTS, *languages)
        assert (code, err) == (0, "")
        assert out.splitlines() == [written(prefix + text, **settings) for text in TEXTS]
    assert call("translate", t5, SENTENCES[0], *TO_FRENCH) == (0, french(written, SENTENCES[0]) + "\n", "")
    named = call("translate", t5, SENTENCES[0], "--task", "translation_en_to_fr")
    own = call("translate", t5, SENTENCES[0], "--prefix", "translate English to French: ", "--max-new-tokens", 14)
    assert named == own == (0, french(written, SENTENCES[0]) + "\n", "")


def test_one_text_is_streamed_piece_by_piece(t5, written, monkeypatch, call):
    shown = []
    monkeypatch.setattr(sys, "stdout", type("Out", (io.StringIO,), {"write": lambda self, text: shown.append(text)})())
    call("translate", t5, SENTENCES[0], *TO_FRENCH)
    assert len(shown) > 4
    assert "".join(shown) == french(written, SENTENCES[0]) + "\n"


def test_beams_of_ones_own(call, t5, written):
    asked = ("--num-beams", 4, "--length-penalty", -0.5, "--early-stopping", "never", "--no-repeat-ngram-size", 2)
    settings = {"num_beams": 4, "length_penalty": -0.5, "early_stopping": "never", "no_repeat_ngram_size": 2}
    _, out, _ = call("translate", t5, *TEXTS, *TO_FRENCH, *asked, "--batch", 3)
    assert out.splitlines() == [french(written, text, **settings) for text in TEXTS]
    _, out, _ = call("translate", t5, *TEXTS[:2], *TO_FRENCH, *asked, "--num-return-sequences", 3)
    expected = [line for text in TEXTS[:2] for line in french(written, text, num_return_sequences=3, **settings)]
    lines = [line.split("\t") for line in out.splitlines()]
    assert [text for _, text in lines] == [" ".join(text.split()) for text in expected]
    scores = [float(score) for score, _ in lines]
    assert scores[:3] == sorted(scores[:3], reverse=True)


def test_json(call, t5, written, tmp_path):
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps({"id": index, "body": text}) + "\n" for index, text in enumerate([*TEXTS, ""])))
    _, out, _ = call("translate", t5, "--file", file, "--field", "body", *TO_FRENCH, "--json")
    found = [json.loads(line) for line in out.splitlines()]
    assert [one["id"] for one in found] == [0, 1, 2, 3, 4]
    assert [one["translation_text"] for one in found] == [*(french(written, text) for text in TEXTS), ""]
    assert all(one["finish_reason"] in ("stop", "length") for one in found[:4])
    assert set(found[4]) == {"id", "body", "translation_text"}
    beams = ("--num-beams", 3, "--num-return-sequences", 2)
    (one,) = map(json.loads, call("rewrite", t5, "a", *beams, "--max-new-tokens", 9, "--json")[1].splitlines())
    expected = written("a", num_beams=3, num_return_sequences=2, max_new_tokens=9)
    assert [one["generated_text"], one["alternatives"][0]["text"]] == expected
    assert one["score"] >= one["alternatives"][0]["score"]


def test_lines_and_blank_lines_stay(call, t5, written, typed, tmp_path):
    (tmp_path / "texts.txt").write_text("\n".join([TEXTS[0], "", "  ", TEXTS[1], TEXTS[2]]))
    expected = [french(written, TEXTS[0]), "", "  ", french(written, TEXTS[1]), french(written, TEXTS[2])]
    assert call("translate", t5, "--file", tmp_path / "texts.txt", *TO_FRENCH)[1].split("\n") == [*expected, ""]
    typed((tmp_path / "texts.txt").read_text())
    assert call("translate", t5, *TO_FRENCH)[1].split("\n") == [*expected, ""]
    code, out, _ = call("translate", t5, f"{TEXTS[0]}\n\n{TEXTS[1]}", *TO_FRENCH)
    assert (code, out) == (0, f"{expected[0]}\n\n{expected[3]}\n")


def packed(tokenizer, prefix, texts):
    """As many of these sentences in each piece as transformers' tokenizer makes room for."""
    pieces = [[]]
    for text in texts:
        if len(tokenizer(prefix + " ".join([*pieces[-1], text]))["input_ids"]) > READS:
            pieces.append([])
        pieces[-1].append(text)
    return [" ".join(piece) for piece in pieces]


def test_a_long_line_is_translated_in_whole_sentences(call, t5, written):
    prefix, _ = task("translation_en_to_fr")
    pieces = packed(written.tokenizer(), prefix, SENTENCES)
    assert 1 < len(pieces) < len(SENTENCES)
    expected = " ".join(french(written, piece) for piece in pieces)
    assert call("translate", t5, LONG, *TO_FRENCH) == (0, expected + "\n", "")
    code, out, _ = call("translate", t5, "a", LONG, *TO_FRENCH, "--strict")
    assert (code, out.splitlines()) == (0, [french(written, "a"), expected])


def test_a_sentence_that_is_too_long(call, t5):
    text = "word " * 200
    code, out, err = call("translate", t5, text, *TO_FRENCH)
    assert (code, out.count("\n")) == (0, 1)
    assert err == (f"note: cut 1 sentence longer than {READS} tokens; --strict refuses such sentences\n")
    code, out, err = call("translate", t5, "a", text, *TO_FRENCH, "--strict")
    assert code == 2
    assert f"text 2 has a sentence longer than the model's {READS} tokens: 'word word" in one_line(err)


def test_rewrite_gives_the_text_as_it_is(call, t5, written, tmp_path):
    code, out, _ = call("rewrite", t5, *TEXTS, "--max-new-tokens", 10)
    assert (code, out.splitlines()) == (0, [written(text, num_beams=1, max_new_tokens=10) for text in TEXTS])
    code, out, err = call("rewrite", t5, LONG, "--max-new-tokens", 10)
    cut = written.tokenizer()(LONG, truncation=True, max_length=READS, return_tensors="pt")["input_ids"]
    assert (code, out) == (0, _of_ids(written, t5, cut) + "\n")
    assert err == f"note: cut 1 text longer than {READS} tokens; --strict refuses such texts\n"
    code, out, err = call("rewrite", t5, LONG, "--strict")
    assert (code, out) == (2, "\n")
    assert f"text 1 is longer than the model's {READS} tokens" in err


def _of_ids(written, bundle, ids):
    row = written.model().generate(ids, num_beams=1, do_sample=False, max_new_tokens=10)
    return written.tokenizer().decode(row[0], skip_special_tokens=True)


def test_summarize_uses_its_task(call, t5, written, typed):
    prefix, settings = task("summarization")
    expected = written(prefix + SENTENCES[0], **settings)
    assert call("summarize", t5, SENTENCES[0]) == (0, expected + "\n", "")
    typed(SENTENCES[0] + "\n")
    assert call("summarize", t5) == (0, expected + "\n", "")
    typed("\n".join(TEXTS))
    lines = call("summarize", t5, "--lines")[1].splitlines()
    assert lines == [written(prefix + text, **settings) for text in TEXTS]


def test_summarize_reads_windows_and_sums_up_their_summaries(call, t5, written, tmp_path):
    prefix, settings = task("summarization")
    tokenizer = written.tokenizer()
    # No sentence is as short as a sixth of what the model reads, so that windows share none.
    assert min(len(tokenizer(text)["input_ids"]) for text in SENTENCES if text != SENTENCES[2]) > READS // 6
    texts = [text for text in SENTENCES if text != SENTENCES[2]]
    parts = [written(prefix + piece, **settings) for piece in packed(tokenizer, prefix, texts)]
    assert len(parts) > 1
    together = " ".join(parts)
    count = len(tokenizer(together)["input_ids"]) - 1
    file = tmp_path / "article.txt"
    file.write_text("\n".join(texts))
    more = {**settings, "max_new_tokens": count}
    del more["max_length"]
    unlike = [written(prefix + piece, **more) for piece in packed(tokenizer, prefix, texts)]
    out = call("summarize", t5, "--file", file, "--max-new-tokens", count)[1]
    if len(tokenizer(" ".join(unlike))["input_ids"]) - 1 <= count:
        assert out == " ".join(unlike) + "\n"
    # The model's own limit, 12 tokens, is less than the summaries have together.
    assert count > settings["max_length"] - 1
    assert call("summarize", t5, "--file", file)[1] == written(prefix + together, **settings) + "\n"


def test_languages_of_a_translating_model(call, exported_family, written):
    _, bundle = exported_family("nllb")
    model = load_encoder_decoder(bundle)
    forced = written.tokenizer("nllb").convert_tokens_to_ids("zul_Latn")
    for source in ("eng_Latn", "eng"):
        _, out, _ = call("translate", bundle, *TEXTS, "--source-lang", source, "--target-lang", "zul")
        expected = [written(text, "nllb", num_beams=1, forced_bos_token_id=forced) for text in TEXTS]
        assert out.splitlines() == [" ".join(text.splitlines()) for text in expected]
    assert model.text.forced("zul") == [forced]
    for arguments, message in (
        (("--target-lang", "xx"), "the model has no language 'xx'; it has ace_Arab,"),
        (("--target-lang", "zho"), "the language 'zho' may be zho_Hans or zho_Hant; name one of them"),
        (("--target-lang", "zul", "--forced-bos-token-id", 3), "leave --forced-bos-token-id out"),
    ):
        code, out, err = call("translate", bundle, "a", *arguments)
        assert (code, out) == (2, "")
        assert message in one_line(err)


ERRORS = [
    (("translate", "a"), "this model translates en to de, en to fr; choose with --source-lang and --target-lang"),
    (("translate", "a", "--target-lang", "it"), "this model does not translate any to it, but en to de, en to fr"),
    (("translate", "a", "--source-lang", "de"), "this model does not translate de to any, but en to de, en to fr"),
    (("translate", "a", "--task", "poems"), "this model has no task called 'poems'; it has: summarization, transl"),
    (("translate", "a", "--task", "summarization", *TO_FRENCH), "leave one of the two out"),
    (("rewrite", "a", "--task", "summarization", "--prefix", "x"), "leave --task or --prefix out"),
    (("rewrite", ""), "text 1 is empty"),
    (("rewrite", "a", " \n"), "text 2 is empty"),
    (("translate", "a", "", *TO_FRENCH), "text 2 is empty"),
    (("summarize", "  "), "text 1 is empty"),
    (("rewrite", "a", "--batch", "0"), "--batch must be at least 1, not 0"),
    (("rewrite", "a", "--num-beams", "0"), "--num-beams must be a whole number of at least 1, not 0"),
    (("rewrite", "a", "--num-return-sequences", "2"), "--num-return-sequences 2 is more than --num-beams 1"),
    (("rewrite", "a", "--early-stopping", "maybe"), "--early-stopping must be true, false or never, not 'maybe'"),
    (("rewrite", "a", "--max-new-tokens", "3", "--min-new-tokens", "4"), "--min-new-tokens 4 is more than"),
    (("rewrite", "a", "--file", "x.txt"), "give texts or --file, not both"),
    (("rewrite", "--file", "nowhere.txt"), "nowhere.txt cannot be read"),
    (("translate", LONG, *TO_FRENCH, "--num-beams", "2", "--num-return-sequences", "2"), "needs shorter texts"),
    (("rewrite", "a", "--provider-option", "x"), "--provider-option must be KEY=VALUE"),
]


@pytest.mark.parametrize(("arguments", "message"), ERRORS)
def test_bad_input_ends_in_one_line(call, t5, arguments, message):
    command, *rest = arguments
    code, _, err = call(command, t5, *rest)
    assert code == 2
    assert message in " ".join(err.split())
    assert err.count("error: ") == err.count("\n") == 1


def test_bundles_for_something_else_name_their_command(call, t5, sentence_bundle, float_bundle):
    code, out, err = call("translate", sentence_bundle, "a")
    assert (code, out) == (1, "")
    assert "is of the form 'encoder', for feature-extraction" in one_line(err)
    assert "use `triform embed`" in err
    assert "use `triform generate`" in one_line(call("summarize", float_bundle, "a")[2])
    assert "use `triform rewrite`" in one_line(call("generate", t5, "a")[2])
    assert "this model reads text, not images" in one_line(call("read-image", t5, "a.png")[2])


def test_drawn_answers_do_not_depend_on_the_batch(t5):
    model = load_encoder_decoder(t5)
    options = GenerationOptions(temperature=1.0, seed=5, max_new_tokens=8)
    found = [list(model.generate_all(TEXTS * 2, options, batch=batch)) for batch in (1, 3, 8)]
    assert found[0] == found[1] == found[2]
    # The same text elsewhere in the list is another draw.
    assert found[0][:4] != found[0][4:]


def test_groups_of_beams_and_the_best_of_several(t5):
    model = load_encoder_decoder(t5)
    options = GenerationOptions(temperature=0, min_new_tokens=2, max_new_tokens=8)
    groups = Beams(num_beams=4, num_beam_groups=4, diversity_penalty=50.0, num_return_sequences=4)
    for answers in model.generate_all(TEXTS, options, beams=groups):
        assert len({one.token_ids[0] for one in answers}) == 4
    drawing = GenerationOptions(temperature=1.0, seed=5, max_new_tokens=8)
    several = Beams(best_of=5, num_return_sequences=5)
    found = [list(model.generate_all(TEXTS, drawing, beams=several, batch=batch)) for batch in (1, 4)]
    one, four = ([[answer.token_ids for answer in answers] for answers in each] for each in found)
    assert one == four
    for answers, (alone,) in zip(found[0], model.generate_all(TEXTS, drawing), strict=True):
        assert len({one.token_ids for one in answers}) > 2
        assert [one.score for one in answers] == sorted((one.score for one in answers), reverse=True)
        # The first of them that is drawn is what is drawn without a choice.
        assert alone.token_ids in [one.token_ids for one in answers]


def test_python(t5, written):
    model = load_encoder_decoder(t5)
    ask = Ask(task="translation_en_to_fr")
    answer = model.generate(SENTENCES[0], ask=ask)
    assert answer.text == french(written, SENTENCES[0])
    assert "".join(piece.text for piece in model.stream(SENTENCES[0], ask=ask)) == answer.text
    settled = model.settle(ask=ask)
    assert (settled.search, settled.row([0]).limit) == (None, 14)
    settled = model.settle(GenerationOptions(max_new_tokens=3), beams=Beams(num_beams=2))
    assert (settled.search, settled.row([0]).limit) == (BeamOptions(2), 3)


def test_bench_gives_the_speed_of_an_answer(call, t5):
    code, out, err = call("bench", t5, "--tokens", 9, "--new-tokens", 4, "--runs", 1, "--json")
    assert (code, err) == (0, "")
    figures = json.loads(out)
    assert (figures["form"], figures["new_tokens"]) == ("encoder-decoder", 4)
    assert 5 <= figures["source_tokens"] <= 9
