"""Embeddings, from Python and with `triform embed`, against transformers running the same checkpoint."""

from __future__ import annotations

import io
import itertools
import json
import os
import pty
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from numpy.testing import assert_allclose, assert_array_equal

from tests.checkpoints.encoders import sentence_folder
from tests.helpers.bundles import change, read_manifest_json
from tests.helpers.commands import one_line
from tests.helpers.sentences import MAX_LENGTH, TEXTS, mean_vectors, token_vectors
from triform.export.options import ExportOptions
from triform.export.pipeline import export
from triform.models.encoder.pooling import POOLINGS, sentence_embedding
from triform.runtime.arithmetic import cosines, unit
from triform.runtime.bundle.manifest import EmbeddingInfo
from triform.runtime.encoder.vectors import embedding
from triform.runtime.encoder.vectors.embedding import default_document_prompt, default_query_prompt, embed
from triform.runtime.encoder.vectors.quantization import int8_ranges, quantize
from triform.runtime.errors import BundleError, InputError
from triform.runtime.opening import load_encoder

TOLERANCE = 2e-6


@pytest.fixture(scope="module")
def model(sentence_bundle):
    return load_encoder(sentence_bundle)


@pytest.fixture(scope="module")
def expected(sentence_source):
    return mean_vectors(sentence_source, TEXTS)


@pytest.fixture(scope="module")
def weights():
    torch.manual_seed(1)
    dense = {"linear.weight": torch.randn(20, 6 * 48) / 8, "linear.bias": torch.randn(20)}
    return dense, {"norm.weight": torch.randn(20), "norm.bias": torch.randn(20)}


@pytest.fixture(scope="module")
def whole_source(tmp_path_factory, weights):
    """Every pooling at once, joined, and every layer, without Normalize."""
    flags = ("cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
    dense = {"in_features": 288, "out_features": 20, "activation_function": "torch.nn.modules.activation.Tanh"}
    return sentence_folder(
        tmp_path_factory.mktemp("whole") / "checkpoint",
        {"word_embedding_dimension": 48, **{f"pooling_mode_{flag}": True for flag in flags}},
        [("Dense", dense, weights[0]), ("Dropout", {"dropout": 0.5}, {}), ("LayerNorm", {"dimension": 20}, weights[1])],
        normalize=False,
        prompts={"query": "query: "},
        default_prompt_name="query",
    )


def pooled(states, before=0):
    """Each pooling of one text's (tokens, hidden_size), from its definition; `before` tokens stand before them."""
    weights = torch.arange(before + 1.0, before + len(states) + 1)[:, None]
    return {
        "cls": states[0],
        "max": states.max(0).values,
        "mean": states.sum(0) / len(states),
        "mean_sqrt_len_tokens": states.sum(0) / len(states) ** 0.5,
        "weightedmean": (states * weights).sum(0) / weights.sum(),
        "lasttoken": states[-1],
    }


def test_vectors_are_those_of_pytorch(model, expected):
    vectors = model.embed(TEXTS)
    assert vectors.dtype == np.float32
    assert_allclose(vectors, expected, atol=TOLERANCE)
    assert model.rows.truncated >= 1
    assert np.ptp(expected, axis=0).max() > 0.1


def test_every_pooling_and_layer(whole_source, weights, tmp_path):
    export(str(whole_source), tmp_path / "bundle", ExportOptions(quantize="none"))
    model = load_encoder(tmp_path / "bundle")
    joined = torch.stack([torch.cat(list(pooled(s).values())) for s in token_vectors(whole_source, TEXTS)])
    dense, norm = weights
    vectors = torch.tanh(joined @ dense["linear.weight"].T + dense["linear.bias"])
    expected = torch.nn.functional.layer_norm(vectors, (20,), norm["norm.weight"], norm["norm.bias"])
    assert model.info.embedding.normalized is False
    assert_allclose(model.embed(TEXTS, prompt=""), expected, atol=5e-5)
    # The default prompt, and the first numbers of vectors whose length means something.
    prompted = np.stack(list(embed(model, ["query: Rain."], prompt="")))
    assert_array_equal(model.embed(["Rain."]), prompted)
    assert_array_equal(model.embed(["Rain."], prompt_name="query", dimensions=7), prompted[:, :7])


@pytest.mark.parametrize("name", POOLINGS)
def test_poolings_leave_padding_out(name):
    torch.manual_seed(0)
    states = torch.randn(3, 7, 5)
    lengths = [7, 4, 1]
    mask = (torch.arange(7) < torch.tensor(lengths)[:, None]).long()
    found = sentence_embedding(states, mask, [name], [], normalize=False)
    assert_allclose(found, torch.stack([pooled(states[i, :n])[name] for i, n in enumerate(lengths)]), atol=1e-6)


@pytest.mark.parametrize("name", POOLINGS)
def test_poolings_leave_prompts_out(name):
    torch.manual_seed(0)
    states = torch.randn(3, 7, 5)
    lengths, prompts = [7, 4, 3], [2, 0, 2]
    mask = (torch.arange(7) < torch.tensor(lengths)[:, None]).long()
    found = sentence_embedding(states, mask, [name], [], False, torch.tensor(prompts))
    parts = zip(states, prompts, lengths, strict=True)
    assert_allclose(found, torch.stack([pooled(one[m:n], m)[name] for one, m, n in parts]), atol=1e-6)


def test_a_prompt_that_is_not_part_of_the_vector(call, tmp_path):
    """As INSTRUCTOR asks for it: read, but not pooled. Every pooling that is a sum or a token, joined."""
    flags = ("cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
    settings = {"word_embedding_dimension": 48, **{f"pooling_mode_{flag}": True for flag in flags}}
    prompt = "Represent the passage, so that it is found: "
    prompts = {"passage": prompt, "nothing": ""}
    folder = sentence_folder(
        tmp_path / "source", {**settings, "include_prompt": False}, [], normalize=False, prompts=prompts
    )
    export(str(folder), tmp_path / "bundle", ExportOptions(quantize="none"))
    model = load_encoder(tmp_path / "bundle")
    texts = [TEXTS[0], TEXTS[2], TEXTS[5]]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    count = len(tokenizer(prompt)["input_ids"]) - 1
    states = token_vectors(folder, [prompt + text for text in texts])
    expected = torch.stack([torch.cat(list(pooled(one[count:], count).values())) for one in states])
    assert_allclose(model.embed(texts, prompt_name="passage"), expected, atol=5e-5)
    plain = torch.stack([torch.cat(list(pooled(one).values())) for one in token_vectors(folder, texts)])
    assert_allclose(model.embed(texts), plain, atol=5e-5)
    assert_allclose(model.embed(texts, prompt_name="nothing"), plain, atol=5e-5)
    assert not model.info.embedding.include_prompt
    code, out, _ = call("verify", tmp_path / "bundle", "--against", folder, "--json")
    parity = json.loads(out)["parity"]
    assert (code, parity["single"] <= parity["tolerance"]) == (0, True)


def test_prompts(model, sentence_source):
    for options, before in (
        ({"prompt": "As said: "}, "As said: "),
        ({"prompt_name": "query"}, "Find what answers: "),
        ({"prompt_name": "plain"}, ""),
        ({}, ""),
    ):
        expected = mean_vectors(sentence_source, [before + text for text in TEXTS])
        assert_allclose(model.embed(TEXTS, **options), expected, atol=TOLERANCE)


def test_which_prompt_searches_take():
    def info(**prompts):
        return EmbeddingInfo(4, "mean", True, prompts, default_prompt=next(iter(prompts), None))

    assert (default_query_prompt(info()), default_document_prompt(info())) == ("", "")
    assert (default_query_prompt(info(other="o")), default_document_prompt(info(other="o"))) == ("", "")
    assert default_query_prompt(info(document="d", query="q")) == "q"
    assert default_document_prompt(info(query="q", corpus="c", passage="p")) == "p"
    assert default_document_prompt(info(passage="p", document="d")) == "d"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"prompt_name": "nowhere"}, "no prompt called 'nowhere'; it has: query, passage, plain"),
        ({"prompt": "a", "prompt_name": "query"}, "not both"),
        ({"dimensions": 0}, "between 1 and the model's 48, not 0"),
        ({"dimensions": 49}, "between 1 and the model's 48, not 49"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_a_text_is_read(model, call, sentence_bundle, options, text):
    with pytest.raises(InputError, match=text):
        embed(model, ["never read"], **options)
    arguments = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value)]
    code, out, err = call("embed", sentence_bundle, "a text", *arguments)
    assert (code, out) == (2, "")
    assert text in one_line(err)


def test_shortened_vectors_keep_length_1(model, expected):
    cut = torch.nn.functional.normalize(torch.tensor(expected)[:, :11], p=2, dim=1)
    assert_allclose(model.embed(TEXTS, dimensions=11), cut, atol=5e-6)


def test_any_number_of_texts_lazily_and_in_order(model, expected, monkeypatch):
    assert model.embed([]).shape == (0, 48)
    monkeypatch.setattr(model.step, "size", replace(model.step.size, texts=4))
    endless = embed(model, itertools.cycle(TEXTS))
    found = [next(endless) for _ in range(3 * len(TEXTS))]
    assert_allclose(found, np.tile(expected, (3, 1)), atol=TOLERANCE)


def test_long_texts_are_read_a_few_at_a_time(model, monkeypatch):
    monkeypatch.setattr(embedding, "_CHUNK_CHARACTERS", 100)
    read = []
    vectors = embed(model, (read.append(1) or "x" * 60 for _ in range(10)))
    next(vectors)
    # Two, and the next two while these are computed.
    assert len(read) == 4


def test_errors_name_the_text(sentence_bundle, model, monkeypatch):
    monkeypatch.setattr(model.step, "size", replace(model.step.size, texts=2))
    with pytest.raises(InputError, match="text 5 is not valid Unicode"):
        model.embed(["a", "b", "c", "d", "\ud800"])
    strict = load_encoder(sentence_bundle, strict=True)
    with pytest.raises(InputError, match=f"text 4 is longer than the model's {MAX_LENGTH} tokens"):
        strict.embed(TEXTS)


def test_a_text_without_tokens(sentence_bundle):
    """As tokenizers that put nothing around a text make of an empty one: the sum of no vectors."""
    model = load_encoder(sentence_bundle)
    backend = model.rows.tokenizer.backend
    backend.post_processor = type(backend.post_processor)(single="$A", special_tokens=[])
    vectors = model.embed(["", "rain", " ", "snow", ""])
    assert_array_equal(vectors[[0, 2, 4]], np.zeros((3, 48)))
    assert_allclose(vectors[[1, 3]], model.embed(["rain", "snow"]), atol=TOLERANCE)
    assert_array_equal(model.embed([""], dimensions=5), np.zeros((1, 5)))


def test_results_that_are_no_numbers_are_refused(model, monkeypatch):
    broken = [np.full((1, 48), np.nan, np.float32)]
    monkeypatch.setattr(model.step, "feed", lambda *_: broken)
    with pytest.raises(BundleError, match="NaN"):
        model.embed(["rain"])


def test_quantized_vectors():
    """int8 and binary: the formulas of sentence-transformers' quantize_embeddings, with numbers worked out by hand."""
    vectors = np.array([[-1.0, 0.0, 0.5, 3.0], [9.0, 130.7, -0.5, 1.0]], np.float32)
    ranges = np.array([[-1.0, 0.0, 0.0, 1.0], [-1.0 + 255 / 128, 255.0, 255 / 4, 1.0]], np.float32)
    # floor((value - least) / ((greatest - least) / 255)), from 0 to 255, less 128; a step of 0 counts as 1.
    assert_array_equal(quantize(vectors, "int8", ranges), [[-128, -128, -126, -126], [127, 2, -128, -128]])
    bits = np.array([[1, 0, -1, 2, 0.1, -0.0, 5, 7, 3, -3]], np.float32)
    # 10011011 and 10000000, as numbers less 128.
    assert_array_equal(quantize(bits, "binary"), [[0b10011011 - 128, 0]])
    assert quantize(bits, "binary").dtype == quantize(vectors, "int8").dtype == np.int8
    assert_array_equal(quantize(vectors, "float16"), vectors.astype(np.float16))
    assert_array_equal(quantize(vectors, "float32"), vectors)
    with pytest.raises(InputError, match="not int4"):
        quantize(vectors, "int4")


def test_int8_rounds_numbers_of_vectors_of_length_1(expected):
    found = quantize(expected * 3, "int8")
    # 127 stands for 8 / sqrt(48), which is more than 1.
    assert_array_equal(found, np.round(expected * 127).astype(np.int8))
    assert_allclose(int8_ranges(1024)[:, 0], [-128.5 * 0.25 / 127, 126.5 * 0.25 / 127], rtol=1e-6)


def test_lengths_and_cosines():
    assert_array_equal(unit(np.zeros(3, np.float32)), np.zeros(3))
    assert_allclose(unit(np.array([[3, 4]], np.float32)), [[0.6, 0.8]], rtol=1e-6)
    assert cosines(np.array([1, 2], np.float32), np.array([2, 4], np.float32)) == pytest.approx(1, abs=1e-12)
    assert cosines(np.array([1, 0], np.float32), np.array([1, 1], np.float32)) == pytest.approx(0.5**0.5, abs=1e-7)


def test_bundles_for_something_else(call, sentence_bundle, float_bundle, tmp_path):
    code, out, err = call("embed", float_bundle, "a text")
    assert (code, out) == (1, "")
    assert "use `triform generate`" in one_line(err)
    code, out, err = call("embed", sentence_bundle, "--image", "a.png")
    assert (code, out) == (1, "")
    assert "this one is for feature-extraction" in one_line(err)
    other = shutil.copytree(sentence_bundle, tmp_path / "bundle")
    change(other, task="something-new")
    code, out, err = call("embed", other, "a text")
    assert (code, out) == (1, "")
    assert "this one is for something-new: export another model" in one_line(err)
    change(other, task="feature-extraction", encoder={**read_manifest_json(other)["encoder"], "embedding": None})
    with pytest.raises(BundleError, match=r"encoder\.embedding\.dimension must be 48 as in sentence_embedding"):
        load_encoder(other)


def lines_of(text):
    return [json.loads(line) for line in text.splitlines()]


def test_prints_a_json_object_a_text(call, sentence_bundle, expected, monkeypatch):
    code, out, err = call("embed", sentence_bundle, *TEXTS)
    found = lines_of(out)
    assert code == 0
    assert [line["text"] for line in found] == TEXTS
    assert_allclose([line["embedding"] for line in found], expected, atol=TOLERANCE)
    assert err == f"note: cut 1 text longer than {MAX_LENGTH} tokens; --strict refuses such texts\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(TEXTS)))
    assert call("embed", sentence_bundle) == (code, out, err)


def test_printed_numbers_are_exact(call, sentence_bundle, model):
    _, out, _ = call("embed", sentence_bundle, TEXTS[0])
    printed = np.array(lines_of(out)[0]["embedding"], np.float32)
    assert_array_equal(printed, model.embed(TEXTS[:1])[0])


def test_json_in_is_json_out(call, sentence_bundle, expected, tmp_path):
    objects = [{"id": 7, "body": TEXTS[0], "embedding": "old"}, {"body": TEXTS[2], "é": None}]
    (tmp_path / "in.jsonl").write_text("\n\n".join(json.dumps(one) for one in objects) + "\n")
    code, out, err = call("embed", sentence_bundle, "--file", tmp_path / "in.jsonl", "--field", "body")
    found = lines_of(out)
    assert (code, err) == (0, "note: skipped 1 blank line\n")
    assert_allclose([line.pop("embedding") for line in found], expected[[0, 2]], atol=TOLERANCE)
    assert found == [{"id": 7, "body": TEXTS[0]}, {"body": TEXTS[2], "é": None}]
    (tmp_path / "in.jsonl").write_text('{"embedding": "Rain."}')
    code, out, _ = call("embed", sentence_bundle, "--file", tmp_path / "in.jsonl", "--field", "embedding")
    assert code == 0
    assert_allclose(lines_of(out)[0]["embedding"], expected[2], atol=TOLERANCE)


@pytest.fixture
def text_file(tmp_path):
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS) + "\n")
    return tmp_path / "texts.txt"


@pytest.mark.parametrize(
    ("dtype", "stored", "width"),
    [("float32", np.float32, 48), ("float16", np.float16, 48), ("int8", np.int8, 48), ("binary", np.int8, 6)],
)
def test_files_of_numbers(call, sentence_bundle, expected, text_file, tmp_path, dtype, stored, width):
    options = ("embed", sentence_bundle, "--file", text_file, "--output-dtype", dtype, "--output")
    code, out, _ = call(*options, tmp_path / "vectors.npy")
    assert (code, out) == (0, "")
    found = np.load(tmp_path / "vectors.npy")
    assert (found.dtype, found.shape) == (stored, (len(TEXTS), width))
    away = np.abs(found.astype(np.float32) - quantize(expected, dtype).astype(np.float32))
    # A rounding or a sign may tip over where PyTorch's number is at its edge, in few places and by one step.
    assert (away > 1e-3).mean() < 0.02
    assert call(*options, tmp_path / "vectors.bin", "--format", "raw")[0] == 0
    assert (tmp_path / "vectors.bin").read_bytes() == found.tobytes()
    assert call(*options, tmp_path / "vectors.out")[0] == 0
    printed = [line["embedding"] for line in lines_of((tmp_path / "vectors.out").read_text())]
    assert_array_equal(np.array(printed, stored), found)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "texts.txt", "vectors.bin", "vectors.npy", "vectors.out",
    ]  # fmt: skip


def test_a_shortened_binary_file(call, sentence_bundle, expected, text_file, tmp_path):
    options = ("--dimensions", 11, "--output-dtype", "binary", "--output", tmp_path / "v.npy")
    assert call("embed", sentence_bundle, "--file", text_file, *options)[0] == 0
    assert_array_equal(np.load(tmp_path / "v.npy").view(np.uint8) ^ 0x80, np.packbits(expected[:, :11] > 0, axis=1))


def test_no_texts_at_all(call, sentence_bundle, tmp_path):
    (tmp_path / "none.txt").write_text("")
    for name in ("none.npy", "none.jsonl"):
        code, out, err = call("embed", sentence_bundle, "--file", tmp_path / "none.txt", "--output", tmp_path / name)
        assert (code, out, err) == (0, "", "")
    assert np.load(tmp_path / "none.npy").shape == (0, 48)
    assert (tmp_path / "none.jsonl").read_text() == ""


@pytest.mark.parametrize("name", ["vectors.npy", "vectors.jsonl", "vectors.raw"])
def test_a_bad_line_loses_nothing(call, sentence_bundle, tmp_path, name):
    texts, output = tmp_path / "texts.jsonl", tmp_path / name
    good = [json.dumps({"text": text}) for text in TEXTS]
    options = ("embed", sentence_bundle, "--file", texts, "--output", output)
    options += ("--format", "raw") if name == "vectors.raw" else ()
    texts.write_text("\n".join(good))
    assert call(*options)[0] == 0
    whole = output.read_bytes()

    texts.write_text("\n".join([*good[:2], '{"text": 3}', *good[2:]]))
    code, _, err = call(*options)
    assert code == 2
    assert "line 3 of" in err and "--resume" in err
    # What was there stays, and what was computed is beside it.
    assert output.read_bytes() == whole
    part = tmp_path / f"{name}.part"
    # The last row is cut off, as by a kill.
    part.write_bytes(part.read_bytes()[:-3])

    texts.write_text("\n".join(good))
    code, _, err = call(*options)
    assert (code, "continue it with --resume" in one_line(err)) == (2, True)
    for more, option in (
        (("--dimensions", 5), "--dimensions"),
        (("--output-dtype", "int8"), "--output-dtype"),
        (("--prompt", "query: "), "--prompt"),
    ):
        code, _, err = call(*options, *more, "--resume")
        assert (code, f"was made with another {option};" in err) == (2, True)
    texts.write_text("\n".join(['{"text": "another"}', *good[1:]]))
    code, _, err = call(*options, "--resume")
    assert (code, "was made from another input: record 1 differs" in err) == (2, True)
    texts.write_text("")
    code, _, err = call(*options, "--resume")
    assert (code, "has 1 results, but the input has 0 records" in err) == (2, True)
    texts.write_text("\n".join(good))
    assert call(*options, "--resume")[0] == 0
    assert not list(tmp_path.glob("*.part*"))
    if name == "vectors.jsonl":
        found, expected = (
            [one["embedding"] for one in lines_of(text.decode())] for text in (output.read_bytes(), whole)
        )
        assert [one["text"] for one in lines_of(output.read_text())] == TEXTS
        assert_allclose(found, expected, atol=TOLERANCE)
    else:
        start = len(whole) - 4 * 48 * len(TEXTS)
        assert output.read_bytes()[:start] == whole[:start]
        found, expected = (np.frombuffer(content[start:], np.float32) for content in (output.read_bytes(), whole))
        assert_allclose(found, expected, atol=TOLERANCE)


def test_a_first_line_that_is_bad_leaves_no_file(call, sentence_bundle, tmp_path):
    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"text": 3}\n')
    for name in ("vectors.npy", "vectors.jsonl"):
        assert call("embed", sentence_bundle, "--file", texts, "--output", tmp_path / name)[0] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["texts.jsonl"]


def test_resuming_needs_a_file(call, sentence_bundle):
    for more in ((), ("--format", "raw")):
        code, _, err = call("embed", sentence_bundle, "a", "--resume", *more)
        assert (code, "name it with --output" in one_line(err)) == (2, True)


@pytest.mark.parametrize(
    ("content", "name", "text"),
    [
        (b"good\n\xff\xfe\ngood\n", "in.txt", "line 2 of in.txt: it is not UTF-8"),
        (b'{"text": "good"}\n{"text": \n{"text": "good"}\n', "in.jsonl", "line 2 of in.jsonl: it is not JSON"),
        (b'{"text": "good"}\n[1]\n{"text": "good"}\n', "in.jsonl", "line 2 of in.jsonl: it is not an object"),
        (
            b'{"text": "good"}\n{"text": "\\ud800"}\n{"text": "good"}\n',
            "in.jsonl",
            "line 2 of in.jsonl: its 'text' is not valid Unicode",
        ),
    ],
)
def test_damaged_lines(call, sentence_bundle, tmp_path, monkeypatch, content, name, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(content)
    code, out, err = call("embed", sentence_bundle, "--file", name)
    # What comes before the damaged line is finished first.
    assert (code, [line["text"] for line in lines_of(out)]) == (2, ["good"])
    assert text in one_line(err)
    code, out, err = call("embed", sentence_bundle, "--file", name, "--skip-errors")
    assert [line["text"] for line in lines_of(out)] == ["good", "good"]
    assert code == 0
    assert err.startswith(f"note: skipped 1 input that could not be used; the first is {text}")


def test_strict_refuses_long_texts(call, sentence_bundle, text_file):
    code, out, err = call("embed", sentence_bundle, "--file", text_file, "--strict")
    assert (code, out) == (2, "")
    assert f"text 4 is longer than the model's {MAX_LENGTH} tokens" in one_line(err)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--output-dtype", "int4"], "not int4"),
        (["--format", "npz"], "--format must be jsonl, npy or raw, not npz"),
        (["--format", "npy"], "needs --output"),
        (["--output", "nowhere/v.npy"], "nowhere/v.npy cannot be written: No such file or directory"),
        (["--output", "."], ". cannot be written: it is not a file"),
        (["--file", "nowhere.txt"], "not both"),
    ],
)
def test_bad_options(call, sentence_bundle, options, text):
    code, out, err = call("embed", sentence_bundle, "a text", *options)
    assert (code, out) == (2, "")
    assert text in one_line(err)


def test_raw_numbers_go_down_a_pipe(sentence_bundle, expected):
    command = [sys.executable, "-m", "triform", "embed", str(sentence_bundle), TEXTS[0], TEXTS[2], "--format", "raw"]
    done = subprocess.run(command, capture_output=True, check=True)
    assert_allclose(np.frombuffer(done.stdout, np.float32).reshape(2, 48), expected[[0, 2]], atol=TOLERANCE)


def test_progress_on_a_terminal(sentence_bundle, text_file, tmp_path):
    ours, theirs = pty.openpty()
    options = ["--file", str(text_file), "--output", str(tmp_path / "v.npy")]
    command = [sys.executable, "-m", "triform", "embed", str(sentence_bundle), *options]
    subprocess.run(command, stderr=theirs, check=True, env={**os.environ, "TERM": "xterm"})
    os.close(theirs)
    shown = os.read(ours, 10**6).decode()
    os.close(ours)
    assert f"{len(TEXTS)}/{len(TEXTS)}" in shown


def test_bench_gives_the_speed_of_texts(call, sentence_bundle):
    code, out, err = call("bench", sentence_bundle, "--tokens", 7, "--batch", 3, "--runs", 2, "--json")
    assert (code, err) == (0, "")
    figures = json.loads(out)
    assert (figures["form"], figures["batch"]) == ("encoder", 3)
    assert 5 <= figures["text_tokens"] <= 7
    assert figures["inputs_per_second"] > 0 and figures["latency"]["p50"] > 0
