"""Pages through whole bundles, against transformers: spans, answers, vectors; a wrong coordinate is noticed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import triform
from tests.checkpoints.layouts import bert_tokenizer, byte_level_page_tokenizer, layout_folder, layout_model
from tests.helpers.commands import invoke, one_line
from triform.export.options import ExportOptions
from triform.export.pipeline import export
from triform.export.runners import EncoderRunner
from triform.export.verify.encoder import ReferenceBatch, verify_encoder
from triform.runtime.checked_json import sealed
from triform.runtime.errors import ExportError

# None is O, so that every token is found.
LABELS = dict(enumerate(("B-QUESTION", "I-QUESTION", "B-ANSWER", "I-ANSWER", "HEADER")))
WORDS = ["Lighthouse", "keeper:", "", "Zoë", "Harbor", "No.", "12", "street"]
BOXES = [[37 * index, 20.5 * index + 3, 61 * index + 9, 55 * index + 10] for index in range(len(WORDS))]
SIZE = (611, 797)
PAGES = [triform.Page(WORDS, BOXES, SIZE), triform.Page(["the", "sea"], [[1, 2, 300, 40], [500, 600, 700, 999]])]
THOUSANDTHS = [
    [[int(1000 * (value / side)) for value, side in zip(box, 2 * SIZE, strict=True)] for box in BOXES],
    PAGES[1].boxes,
]


@dataclass(frozen=True)
class Exported:
    model: Any
    tokenizer: Any
    bundle: Path


def exported(folder, model, tokenizer):
    checkpoint = layout_folder(folder / "checkpoint", model, tokenizer)
    export(str(checkpoint), folder / "bundle", ExportOptions(quantize="none"))
    return Exported(model, tokenizer, folder / "bundle")


@pytest.fixture(scope="module")
def tagger(tmp_path_factory):
    model = layout_model("LayoutLMForTokenClassification", id2label=LABELS)
    return exported(tmp_path_factory.mktemp("tagger"), model, bert_tokenizer())


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """LiLT with LayoutLMv3's tokenizer, which gives boxes itself."""
    model = layout_model("LiltForQuestionAnswering")
    return exported(tmp_path_factory.mktemp("reader"), model, byte_level_page_tokenizer())


@pytest.fixture(scope="module")
def embedder(tmp_path_factory):
    """BROS, whose boxes are fractions of the page."""
    return exported(tmp_path_factory.mktemp("embedder"), layout_model("BrosModel"), bert_tokenizer())


def documented(tokenizer, page, boxes):
    """The inputs as LayoutLM's documentation makes them."""
    pieces = [tokenizer(word, add_special_tokens=False)["input_ids"] for word in page.words]
    ids = [piece for each in pieces for piece in each]
    own = [box for each, box in zip(pieces, boxes, strict=True) for _ in each]
    words = [index for index, each in enumerate(pieces) for _ in each]
    inputs = {
        "input_ids": torch.tensor([[tokenizer.cls_token_id, *ids, tokenizer.sep_token_id]]),
        "bbox": torch.tensor([[[0] * 4, *own, [1000] * 4]]),
    }
    return inputs, words


def test_tags_are_those_of_transformers(tagger):
    model, tokenizer = tagger.model, tagger.tokenizer
    found = triform.load_encoder(tagger.bundle, threads=1).tag(PAGES, aggregation="none")
    for page, boxes, tags in zip(PAGES, THOUSANDTHS, found, strict=True):
        inputs, words = documented(tokenizer, page, boxes)
        with torch.no_grad():
            scores, labels = model(**inputs).logits[0, 1:-1].softmax(-1).max(-1)
        assert [tag.label for tag in tags] == [LABELS[label] for label in labels.tolist()]
        assert [tag.words for tag in tags] == [(word,) for word in words]
        np.testing.assert_allclose([tag.score for tag in tags], scores, atol=1e-5)
        assert all(tag.text == page.text[tag.start : tag.end] and tag.text in page.words[tag.words[0]] for tag in tags)


def test_words_of_a_page_are_its_own(tagger):
    """The first token of each word decides, with words as the page has them, also those of several pieces."""
    (tags,) = triform.load_encoder(tagger.bundle, threads=1).tag(PAGES[:1], aggregation="first")
    inputs, words = documented(tagger.tokenizer, PAGES[0], THOUSANDTHS[0])
    with torch.no_grad():
        labels = tagger.model(**inputs).logits[0, 1:-1].argmax(-1).tolist()
    by_word = {word: LABELS[labels[words.index(word)]] for word in sorted(set(words))}
    kinds = [label.removeprefix("B-").removeprefix("I-") for label in by_word.values()]
    found = {word: tag.label for tag in tags for word in tag.words}
    assert found == dict(zip(by_word, kinds, strict=True))
    assert len(set(kinds)) > 1
    assert all(tag.text == " ".join(WORDS[word] for word in tag.words) for tag in tags)


def test_long_pages_are_read_in_windows(tagger):
    words = [WORDS[index % 5] or "mill" for index in range(160)]
    page = triform.Page(words, [[index, index, index + 5, index + 9] for index in range(160)])
    (tags,) = triform.load_encoder(tagger.bundle, threads=1).tag([page], aggregation="none")
    pieces = [len(tagger.tokenizer.tokenize(word)) for word in words]
    assert sum(pieces) > 200
    assert [tag.words for tag in tags] == [(index,) for index, count in enumerate(pieces) for _ in range(count)]
    assert all(len(tag.words) == 1 and tag.text in words[tag.words[0]] for tag in tags)


def test_the_manifest_says_how_boxes_are_given(tagger, reader):
    manifest = json.loads((tagger.bundle / "manifest.json").read_text())
    corner = {"token": tagger.tokenizer.sep_token_id, "box": [1000] * 4}
    assert manifest["encoder"]["boxes"] == {"scale": 1000, "whole": True, "special": [corner]}
    (boxes,) = [tensor for tensor in manifest["graphs"]["encoder"]["inputs"] if tensor["name"] == "bbox"]
    assert boxes == {"name": "bbox", "dtype": "int64", "shape": ["batch", "sequence", 4]}
    notes = [json.loads((each.bundle / "manifest.json").read_text())["export"]["notes"] for each in (tagger, reader)]
    assert [any("the tokenizer gives no boxes" in note for note in each) for each in notes] == [True, False]


@pytest.mark.parametrize(
    ("place", "value", "problem"),
    [
        (("boxes",), None, "encoder.boxes must be given where the graph takes bbox"),
        (("boxes", "whole"), False, "encoder.boxes.whole must be True for int64"),
        (("boxes", "scale"), 0, "encoder.boxes.scale must be at least 1"),
        (("boxes", "special", 0, "token"), 10**6, "encoder.boxes.special[0].token must be a token id"),
        (("boxes", "special", 0, "box"), [0, 0, 1001, 0], "encoder.boxes.special[0].box must be four numbers from 0"),
        (("boxes", "special", 0, "box"), [0, 0, 1], "encoder.boxes.special[0].box must be four numbers from 0"),
    ],
)
def test_damaged_manifests(tagger, tmp_path, place, value, problem):
    content = json.loads((tagger.bundle / "manifest.json").read_text())
    content.pop("manifest_sha256")
    holder = content["encoder"]
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = value
    (tmp_path / "manifest.json").write_text(sealed(content, "manifest_sha256"))
    with pytest.raises(triform.BundleError) as error:
        triform.load_encoder(tmp_path)
    assert problem in str(error.value)


def test_the_command_reads_pages(tagger, tmp_path, capsys):
    bundle = tagger.bundle
    rows = [
        {"id": "f1", "words": WORDS, "boxes": BOXES, "page": SIZE},
        {"words": PAGES[1].words, "boxes": PAGES[1].boxes},
    ]
    file = tmp_path / "pages.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, out, _ = invoke(capsys, "tag", bundle, "--file", file, "--json")
    assert code == 0
    expected = triform.load_encoder(bundle, threads=1).tag(PAGES)
    for line, row, tags in zip(out.splitlines(), rows, expected, strict=True):
        found = json.loads(line)
        assert {name: found[name] for name in row} == json.loads(json.dumps(row))
        assert [(tag["label"], tuple(tag["words"])) for tag in found["tags"]] == [
            (tag.label, tag.words) for tag in tags
        ]
    code, out, err = invoke(capsys, "tag", bundle, "A text.")
    assert (code, out) == (2, "")
    assert "text 1 has no boxes: " in one_line(err)
    assert '{"words": [' in err
    file.write_text(json.dumps(rows[1]) + "\n" + json.dumps({"words": ["a"], "boxes": []}) + "\n")
    code, out, err = invoke(capsys, "tag", bundle, "--file", file)
    assert code == 2
    assert out
    assert f"line 2 of {file}: a page of 1 words needs as many boxes, not 0" in one_line(err)


def test_what_has_no_boxes_to_give_is_refused(tagger, tmp_path, capsys):
    with pytest.raises(triform.UnsupportedError, match="a table has only texts to give, but this model reads where"):
        triform.Predictor(tagger.bundle, triform.TagTask())
    file = tmp_path / "texts.csv"
    file.write_text("text\nA text.\n")
    code, _, err = invoke(
        capsys, "batch", "tag", tagger.bundle, "--input", file, "--column", "text", "--output", tmp_path / "o"
    )
    assert code == 1
    assert "a table has only texts to give" in one_line(err)
    code, out, _ = invoke(capsys, "bench", tagger.bundle, "--runs", "1", "--tokens", "20", "--json")
    assert code == 0
    assert json.loads(out)["text_tokens"] <= 20


def test_answers_are_those_of_transformers(reader, tmp_path, capsys):
    question, words = "Who keeps it?", [word for word in WORDS if word]
    boxes = [[29 * index, 31 * index, 40 * index + 7, 50 * index + 8] for index in range(len(words))]
    encoded = reader.tokenizer(question, words, boxes=boxes, return_tensors="pt")
    with torch.no_grad():
        found = reader.model(**encoded)
    sequences, places = encoded.sequence_ids(0), encoded.word_ids(0)
    possible = torch.tensor([sequence == 1 or index == 0 for index, sequence in enumerate(sequences)])
    start, end = (
        logits[0].masked_fill(~possible, -torch.inf).softmax(-1) for logits in (found.start_logits, found.end_logits)
    )
    by_words = {}
    for first in range(1, len(places)):
        for last in range(first, min(first + 15, len(places))):
            if sequences[first] == sequences[last] == 1:
                key = (places[first], places[last])
                by_words[key] = by_words.get(key, 0) + float(start[first] * end[last])
    best = max(by_words, key=by_words.get)
    page = tmp_path / "page.json"
    page.write_text(json.dumps({"words": words, "boxes": boxes}, indent=1))
    code, out, _ = invoke(capsys, "answer", reader.bundle, question, "--file", page, "--json", "--top-k", "1000")
    assert code == 0
    answers = {(answer["words"][0], answer["words"][-1]): answer for answer in json.loads(out)}
    assert answers[best]["score"] == pytest.approx(by_words[best], rel=1e-4)
    assert answers[best]["text"] == " ".join(words[best[0] : best[1] + 1])
    assert best == next(iter(answers))
    code, _, err = invoke(capsys, "answer", reader.bundle, question, "--context", "A text.")
    assert code == 2
    assert "text 1 has no boxes" in one_line(err)


def test_vectors_are_those_of_transformers(embedder):
    encoder = triform.load_encoder(embedder.bundle, threads=1)
    relative = [[value / side for value, side in zip(box, 2 * SIZE, strict=True)] for box in BOXES]
    inputs, _ = documented(embedder.tokenizer, PAGES[0], relative)
    inputs["bbox"][0, -1] = 1
    with torch.no_grad():
        expected = embedder.model(**inputs).last_hidden_state[0].numpy()
    np.testing.assert_allclose(encoder.token_vectors(PAGES[:1])[0].vectors, expected, atol=1e-4)
    vectors = encoder.embed(PAGES)
    np.testing.assert_allclose(vectors[0], expected.mean(0), atol=1e-4)
    assert encoder.similarity(PAGES)[0, 1] == pytest.approx(encoder.similarity(PAGES[:1], PAGES[1:])[0, 0])
    with pytest.raises(triform.InputError, match="a prompt has no place on a page"):
        encoder.embed(PAGES, prompt="query: ")
    with pytest.raises(triform.InputError, match="pages cannot be searched"):
        encoder.search(PAGES[:1], PAGES)
    with pytest.raises(triform.InputError, match="a list is needed, not a single Page"):
        encoder.embed(PAGES[0])


def samples(scale):
    """Rows of several lengths, whose corners are far apart, so that exchanged coordinates are boxes too."""
    draw = torch.Generator().manual_seed(3)
    made = []
    for length in (23, 1, 31, 9):
        corners = torch.rand(length, 4, generator=draw) * 0.34 + torch.tensor([0.0, 0.05, 0.5, 0.6])
        boxes = corners if scale == 1 else (corners * scale).long()
        ids = torch.randint(5, 300, (length,), generator=draw)
        made.append({"input_ids": ids.numpy(), "attention_mask": torch.ones_like(ids).numpy(), "bbox": boxes.numpy()})
    return made


def outputs(model, rows, names):
    """What transformers gives for each row alone, padded to the longest."""
    longest = max(len(row["input_ids"]) for row in rows)
    padded = {name: torch.zeros(len(rows), longest, 64) for name in names}
    for index, row in enumerate(rows):
        with torch.no_grad():
            found = model(**{name: torch.from_numpy(array)[None] for name, array in row.items()})
        for name in names:
            value = found[name][0] if found[name].dim() == 3 else found[name][0, :, None]
            padded[name] = padded[name][..., : value.shape[-1]]
            padded[name][index, : len(value)] = value
    return [padded[name].squeeze(-1) for name in names]


@pytest.mark.parametrize("kind", ["tagger", "reader", "embedder"])
def test_a_wrong_coordinate_is_noticed(kind, request):
    """The comparison that each export makes, with two coordinates exchanged, and with one moved."""
    chosen = request.getfixturevalue(kind)
    names = {"tagger": ["logits"], "reader": ["start_logits", "end_logits"], "embedder": ["last_hidden_state"]}[kind]
    runner = EncoderRunner(chosen.bundle / "encoder.onnx", 1)
    rows = samples(1 if kind == "embedder" else 1000)
    if "token_type_ids" in runner.inputs:
        rows = [{**row, "token_type_ids": 0 * row["input_ids"]} for row in rows]
    expected = outputs(chosen.model, rows, names)

    def compared(order, moved=(0, 0, 0, 0)):
        changes = np.random.default_rng(0).uniform(0.01, 0.05, (40, 4)) * moved * (1 if kind == "embedder" else 1000)
        boxes = [row["bbox"][:, order] + changes[: len(row["bbox"])].astype(row["bbox"].dtype) for row in rows]
        given = [{**row, "bbox": box} for row, box in zip(rows, boxes, strict=True)]
        verify_encoder(runner, names, ReferenceBatch(given, expected, 0))

    compared([0, 1, 2, 3])
    for order in ([1, 0, 2, 3], [0, 1, 3, 2], [1, 0, 3, 2]):
        with pytest.raises(ExportError, match="the graph does not match PyTorch"):
            compared(order)
    for moved in np.eye(4):
        with pytest.raises(ExportError, match="the graph does not match PyTorch"):
            compared([0, 1, 2, 3], moved)
