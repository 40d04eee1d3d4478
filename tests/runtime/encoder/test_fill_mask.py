"""`triform fill-mask`, against transformers' pipeline on the same checkpoint."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import AutoTokenizer, PreTrainedTokenizerFast, pipeline

from tests.checkpoints.encoders import VOCAB, bert_folder
from tests.helpers.bundles import change, read_manifest_json
from tests.helpers.commands import invoke, one_line
from triform.export.options import ExportOptions
from triform.export.pipeline import export
from triform.export.tokenization.clean_up import clean_up_decoding
from triform.runtime.encoder.fill_mask import fill_mask
from triform.runtime.errors import InputError, UnsupportedError
from triform.runtime.opening import load_encoder

TEXTS = [
    "The ferry left the [MASK] before dawn.",
    "[MASK]",
    "Two [MASK], three nets and not a single [MASK]!",
    "It ' s a [MASK] , don ' t you think ?",
    "Nobody in the [MASK] had seen a winter like that one, and the oldest of [MASK] said so every [MASK].",
]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("masked") / "checkpoint"
    bert_folder(folder, "BertForMaskedLM", num_hidden_layers=1, initializer_range=0.1)
    # As in many published tokenizers.
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "clean_up_tokenization_spaces": True}))
    return folder


@pytest.fixture(scope="module")
def bundle(source):
    export(str(source), source.parent / "bundle", ExportOptions(quantize="none"))
    return source.parent / "bundle"


@pytest.fixture(scope="module")
def reference(source):
    """For each mask of a text, what transformers' pipeline says of it."""
    fill = pipeline("fill-mask", model=str(source))

    def run(text, **options):
        found = fill(text, **options)
        return found if isinstance(found[0], list) else [found]

    return run


def assert_same(masks, expected):
    """Scores fall alike; which of two tokens with the same score comes first is left open.

    The tokenizer is trained anew in each run, and comes out a little different, so any two may be that close.
    """
    assert [len(one) for one in masks] == [len(one) for one in expected]
    for found, wanted in zip(masks, expected, strict=True):
        assert [one.score for one in found] == pytest.approx([other["score"] for other in wanted], abs=1e-5)
        for one, other in zip(_by_token(map(dataclasses.asdict, found)), _by_token(wanted), strict=True):
            assert one == {**other, "score": pytest.approx(other["score"], abs=1e-5)}


def _by_token(fillings):
    return sorted(fillings, key=lambda filling: filling["token"])


@pytest.mark.parametrize("top_k", [5, 40])
def test_fillings_are_the_pipelines(bundle, reference, top_k):
    for text, masks in zip(TEXTS, load_encoder(bundle).fill_mask(TEXTS, top_k=top_k), strict=True):
        assert_same(masks, reference(text, top_k=top_k))


def test_more_than_the_vocabulary(bundle, source):
    ((masks,),) = fill_mask(load_encoder(bundle), TEXTS[:1], top_k=10**6)
    assert sorted(one.token for one in masks) == list(range(AutoTokenizer.from_pretrained(source).vocab_size))
    assert sum(one.score for one in masks) == pytest.approx(1)


def test_a_batch_gives_what_each_text_gives_alone(bundle):
    model = load_encoder(bundle)
    for text, together in zip(TEXTS * 4, fill_mask(model, TEXTS * 4), strict=True):
        (alone,) = fill_mask(model, [text])
        for found, wanted in zip(together, alone, strict=True):
            assert [one.token for one in found] == [one.token for one in wanted]
            assert [one.score for one in found] == pytest.approx([one.score for one in wanted], abs=1e-6)


def test_a_mask_may_be_written_either_way(bundle):
    model = load_encoder(bundle)
    expected = list(fill_mask(model, TEXTS))
    assert list(fill_mask(model, [text.replace("[MASK]", "<mask>") for text in TEXTS])) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        # Numbers below 0 would count from the end.
        ({"top_k": 0}, "`top_k` must be at least 1, not 0"),
        ({"top_k": -1}, "`top_k` must be at least 1, not -1"),
        ({"top_k": 1.5}, "`top_k` must be a whole number, not 1.5"),
        ({"targets": [3, -1]}, f"`targets` must be token ids from 0 to {VOCAB - 1}, not -1"),
        ({"targets": [VOCAB]}, f"`targets` must be token ids from 0 to {VOCAB - 1}, not {VOCAB}"),
        ({"targets": ["sail"]}, "`targets` must be a whole number, not 'sail'"),
    ],
)
def test_what_cannot_be_asked_for(bundle, options, message):
    model = load_encoder(bundle)
    with pytest.raises(InputError, match=f"^{message}$"):
        model.fill_mask(TEXTS[:1], **options)
    with pytest.raises(InputError, match=r"^the target 7 is not a text$"):
        model.find_targets([7])


def test_targets(bundle, source, reference):
    """A word, the same again, a part of a word, and a word of several tokens."""
    words = ["the", "the", "##s", "harborside"]
    tokenizer = AutoTokenizer.from_pretrained(source)
    found = load_encoder(bundle).find_targets(words)
    pieces = tokenizer.tokenize("harborside")
    assert len(pieces) > 1
    assert [(one.piece, one.whole) for one in found] == [
        ("the", True),
        ("the", True),
        ("##s", True),
        (pieces[0], False),
    ]
    targets = [one.token for one in found]
    for text, masks in zip(TEXTS, fill_mask(load_encoder(bundle), TEXTS, targets=targets), strict=True):
        assert_same(masks, reference(text, targets=words))


def test_decoding_joins_punctuation_as_transformers_does(bundle, reference):
    assert reference(TEXTS[3])[0][0]["sequence"].startswith("it's a")
    (masks,) = fill_mask(load_encoder(bundle), [TEXTS[3]])
    assert_same(masks, reference(TEXTS[3]))


@pytest.mark.parametrize(
    ("asked", "model", "joined"), [(True, "WordPiece", True), (False, "WordPiece", False), (True, "BPE", False)]
)
def test_decoding_is_left_alone_where_transformers_does(tmp_path, asked, model, joined):
    words = {"[UNK]": 0, "it": 1, "'": 2, "s": 3}
    kind = models.WordPiece(words, unk_token="[UNK]") if model == "WordPiece" else models.BPE(words, [])
    tokenizer = Tokenizer(kind)
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=asked)
    fast.backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    clean_up_decoding(fast, tmp_path)
    found = Tokenizer.from_file(str(tmp_path / "tokenizer.json")).decode([1, 2, 3])
    assert found == fast.decode([1, 2, 3])
    assert (found == "it's") == joined


def test_a_text_without_a_mask(bundle):
    model = load_encoder(bundle)
    texts = [TEXTS[0]] * 10 + ["No mask here."]
    with pytest.raises(InputError, match=r"text 11 has no \[MASK\]; put one"):
        list(fill_mask(model, texts))
    with pytest.raises(InputError, match=r"text 1 has no \[MASK\] among the first 96 tokens"):
        list(fill_mask(model, ["word " * 200 + "[MASK]"]))


def test_a_tokenizer_without_a_mask(bundle, tmp_path):
    folder = shutil.copytree(bundle, tmp_path / "bundle")
    change(folder, tokens={**read_manifest_json(folder)["tokens"], "mask": None})
    with pytest.raises(UnsupportedError, match="no token for a mask"):
        next(fill_mask(load_encoder(folder), TEXTS))


def test_lines_of_output(capsys, bundle, reference):
    expected = [one for mask in reference(TEXTS[2], top_k=3) for one in mask]
    code, out, err = invoke(capsys, "fill-mask", bundle, TEXTS[2], "--top-k", 3)
    lines = [line.split("\t") for line in out.splitlines()]
    assert (code, err) == (0, "")
    assert [line[1:] for line in lines] == [[one["token_str"], one["sequence"]] for one in expected]
    assert [float(line[0]) for line in lines] == pytest.approx([one["score"] for one in expected], rel=1e-3)


def test_json_lines(capsys, bundle, reference, tmp_path):
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps({"id": number, "text": text}) + "\n" for number, text in enumerate(TEXTS)))
    code, out, _ = invoke(capsys, "fill-mask", bundle, "--file", file, "--json", "--targets", "the,and")
    assert code == 0
    for number, line in enumerate(out.splitlines()):
        found, expected = json.loads(line), reference(TEXTS[number], targets=["the", "and"])
        assert (found["id"], found["text"]) == (number, TEXTS[number])
        tokens = [[one["token_str"] for one in mask] for mask in found["masks"]]
        assert tokens == [[one["token_str"] for one in mask] for mask in expected]
    assert number == len(TEXTS) - 1


def test_a_target_of_several_tokens_is_said(capsys, bundle, source):
    first = AutoTokenizer.from_pretrained(source).tokenize("harborside")[0]
    code, out, err = invoke(capsys, "fill-mask", bundle, TEXTS[0], "--targets", "the,harborside")
    assert code == 0
    assert len(out.splitlines()) == 2
    assert err == f"note: the target 'harborside' is not one token of this model; using {first!r} instead\n"


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("No mask here.", [], "text 1 has no [MASK]"),
        (TEXTS[0], ["--top-k", "0"], "--top-k must be at least 1"),
        (TEXTS[0], ["--targets", " ,"], "--targets names no word"),
        (TEXTS[0], ["--targets", "the,\u200b"], "has no token"),
        (TEXTS[0], ["--file", "nowhere.txt"], "not both"),
    ],
)
def test_usage_errors(capsys, bundle, text, arguments, message):
    code, out, err = invoke(capsys, "fill-mask", bundle, text, *arguments)
    assert (code, out) == (2, "")
    assert message in one_line(err)
