"""`triform embed` of images, against transformers running the same checkpoint on the same files."""

from __future__ import annotations

import io
import itertools
import json
import sys
from functools import cache

import numpy as np
import pytest
import torch
import transformers
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image, ImageOps

import triform
from tests.helpers.commands import invoke, one_line
from triform.runtime.encoder.vectors.image_embedding import embed_images
from triform.runtime.encoder.vectors.quantization import quantize

TOLERANCE = 1e-5


@pytest.fixture
def call(capsys, monkeypatch):
    monkeypatch.delenv("TRIFORM_BUNDLE", raising=False)
    return lambda *arguments: invoke(capsys, "embed", *arguments)


@pytest.fixture(scope="session")
def reference(exported_image_model, images):
    """From a model's name to what transformers says of all images."""

    @cache
    def find(name):
        folder = exported_image_model(name)[0]
        model = transformers.AutoModel.from_pretrained(folder).eval()
        processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
        opened = [ImageOps.exif_transpose(Image.open(path)).convert("RGB") for path in images]
        with torch.no_grad():
            pixels = processor(images=opened, return_tensors="pt")
            if name == "dinov2":
                return model(**pixels).pooler_output.numpy()
            return torch.nn.functional.normalize(model.get_image_features(**pixels).pooler_output).numpy()

    return find


def lines_of(text):
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize(("name", "option"), [("dinov2", []), ("dinov2", ["--image"]), ("clip", ["--image"])])
def test_prints_a_json_object_an_image(call, exported_image_model, images, reference, name, option):
    code, out, err = call(exported_image_model(name)[1], *option, *images)
    found = lines_of(out)
    assert (code, err) == (0, "")
    assert [line["image"] for line in found] == [str(path) for path in images]
    expected = reference(name)
    assert_allclose([line["embedding"] for line in found], expected, atol=TOLERANCE * np.abs(expected).max())


def test_the_best_caption_is_the_models(call, exported_image_model, images, reference):
    """Texts go where images go."""
    folder, bundle = exported_image_model("clip")
    texts = ["a boat", "two cats asleep beside a very long lorry", "rain"]
    model = transformers.AutoModel.from_pretrained(folder).eval()
    words = transformers.AutoTokenizer.from_pretrained(folder)(texts, return_tensors="pt", padding=True)
    with torch.no_grad():
        expected = torch.nn.functional.normalize(model.get_text_features(**words).pooler_output).numpy()
    code, out, _ = call(bundle, *texts)
    found = np.array([line["embedding"] for line in lines_of(out)])
    assert code == 0
    assert_allclose(found, expected, atol=TOLERANCE)
    assert_array_equal((found @ reference("clip").T).argmax(0), (expected @ reference("clip").T).argmax(0))


def test_texts_of_siglip_are_padded(exported_image_model):
    folder, bundle = exported_image_model("siglip")
    texts = ["a boat", "two cats asleep beside a very long lorry"]
    model = transformers.AutoModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    words = tokenizer(texts, return_tensors="pt", padding="max_length", max_length=64)
    with torch.no_grad():
        expected = torch.nn.functional.normalize(model.get_text_features(**words).pooler_output).numpy()
    assert_allclose(triform.load(bundle).embed(texts), expected, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("dtype", "stored", "width"),
    [("float32", np.float32, 20), ("float16", np.float16, 20), ("int8", np.int8, 20), ("binary", np.int8, 3)],
)
def test_files_of_numbers(call, exported_image_model, images, reference, tmp_path, dtype, stored, width):
    bundle = exported_image_model("clip")[1]
    options = (bundle, "--image", *images, "--output-dtype", dtype, "--output")
    assert call(*options, tmp_path / "v.npy") == (0, "", "")
    found = np.load(tmp_path / "v.npy")
    assert (found.dtype, found.shape) == (stored, (len(images), width))
    away = np.abs(found.astype(np.float32) - quantize(reference("clip"), dtype).astype(np.float32))
    assert (away > 1e-3).mean() < 0.02
    assert call(*options, tmp_path / "v.bin", "--format", "raw")[0] == 0
    assert (tmp_path / "v.bin").read_bytes() == found.tobytes()


def test_an_image_is_never_written_over(call, exported_image_model, images, tmp_path):
    picture = tmp_path / "picture.png"
    picture.write_bytes(images[0].read_bytes())
    code, out, err = call(exported_image_model("dinov2")[1], images[1], picture, "--output", picture)
    assert (code, out) == (2, "")
    assert "picture.png cannot be written: it is the input" in err
    assert picture.read_bytes() == images[0].read_bytes()


def test_shortened_vectors(exported_image_model, images, reference):
    cut = torch.nn.functional.normalize(torch.tensor(reference("clip")[:, :7])).numpy()
    assert_allclose(
        triform.load(exported_image_model("clip")[1]).embed_images(images, dimensions=7), cut, atol=TOLERANCE
    )
    # Of vectors whose length means something, the first numbers.
    cut = reference("dinov2")[:, :7]
    found = triform.load(exported_image_model("dinov2")[1]).embed_images(images, dimensions=7)
    assert_allclose(found, cut, atol=TOLERANCE * np.abs(cut).max())


def test_names_from_lines(call, exported_image_model, images, monkeypatch, tmp_path):
    bundle = exported_image_model("dinov2")[1]
    expected = call(bundle, *images)
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{path}\n" for path in images)))
    assert call(bundle) == expected
    objects = [{"id": index, "photo": str(path)} for index, path in enumerate(images)]
    (tmp_path / "names.jsonl").write_text("".join(json.dumps(one) + "\n" for one in objects))
    code, out, _ = call(bundle, "--file", tmp_path / "names.jsonl", "--field", "photo")
    found = lines_of(out)
    assert code == 0
    assert [line.pop("embedding") for line in found] == [line["embedding"] for line in lines_of(expected[1])]
    assert found == objects


def test_an_image_on_standard_input(call, exported_image_model, images, monkeypatch):
    bundle = exported_image_model("dinov2")[1]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(images[0].read_bytes())))
    _, out, _ = call(bundle, "-")
    _, named, _ = call(bundle, images[0])
    assert lines_of(out) == [{**lines_of(named)[0], "image": "-"}]


def test_any_number_of_images_lazily(exported_image_model, images, reference):
    endless = embed_images(triform.load(exported_image_model("dinov2")[1]), itertools.cycle(images))
    found = [next(endless) for _ in range(2 * len(images))]
    expected = np.tile(reference("dinov2"), (2, 1))
    assert_allclose(found, expected, atol=TOLERANCE * np.abs(expected).max())


def test_broken_images(call, exported_image_model, images, tmp_path):
    bundle = exported_image_model("dinov2")[1]
    (tmp_path / "cut.jpg").write_bytes(images[0].read_bytes()[:200])
    (tmp_path / "words.png").write_text("no image")
    Image.new("RGB", (1, 90000)).save(tmp_path / "thin.png")
    broken = [tmp_path / "cut.jpg", tmp_path / "gone.png", tmp_path / "words.png", tmp_path / "thin.png"]
    mixed = [images[0], broken[0], images[1], *broken[1:], images[2]]
    _, expected, _ = call(bundle, *images[:3])
    code, out, err = call(bundle, *mixed, "--skip-errors")
    found = lines_of(out)
    assert code == 0
    assert [line["image"] for line in found] == [str(path) for path in images[:3]]
    for one, other in zip(found, lines_of(expected), strict=True):
        assert_allclose(one["embedding"], other["embedding"], atol=1e-5)
    assert err.startswith(f"note: skipped 4 inputs that could not be used; the first is argument 2: {broken[0]}")
    for path in broken:
        code, out, err = call(bundle, images[0], path, "--output", tmp_path / "v.npy")
        assert (code, out) == (2, "")
        note, error = err.splitlines()
        assert "v.npy.part" in note
        assert str(path) in error
        assert "--skip-errors goes on without it" in error
        assert not (tmp_path / "v.npy").exists()
        (tmp_path / "v.npy.part").unlink()


@pytest.mark.parametrize(
    ("name", "options", "code", "text"),
    [
        ("dinov2", ["--prompt", "x"], 2, "--prompt is for texts"),
        ("dinov2", ["--prompt-name", "x"], 2, "--prompt-name is for texts"),
        ("clip", ["--image", "--strict"], 2, "--strict is for texts"),
        ("clip", ["--image", "--dimensions", "21"], 2, "between 1 and the model's 20, not 21"),
        ("vit", ["--image"], 1, "this one is for image-classification: use `triform classify-image`"),
        ("vit", [], 1, "this one is for image-classification: use `triform classify-image`"),
    ],
)
def test_options_that_do_not_fit(call, exported_image_model, images, name, options, code, text):
    found, out, err = call(exported_image_model(name)[1], images[0], *options)
    assert (found, out) == (code, "")
    assert text in one_line(err)


def test_bench_gives_the_speed_of_images(capsys, exported_image_model, images):
    bundle = exported_image_model("dinov2")[1]
    code, out, err = invoke(capsys, "bench", bundle)
    assert (code, out) == (2, "")
    assert "this model reads an image: name one with --file" in one_line(err)
    code, out, err = invoke(capsys, "bench", bundle, "--file", images[0], "--batch", 2, "--runs", 1, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["inputs_per_second"] > 0
