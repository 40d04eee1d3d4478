"""`triform read-image` from the outside, against transformers running the same checkpoint."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoTokenizer, VisionEncoderDecoderModel

import triform
from tests.helpers.commands import one_line

LIMIT = ("--max-new-tokens", 9)


@pytest.fixture(scope="session")
def trocr(exported_family):
    return exported_family("trocr")[1]


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    folder, generator = tmp_path_factory.mktemp("lines"), np.random.default_rng(8)
    found = []
    for index, (height, width) in enumerate(((31, 60), (24, 24), (50, 13))):
        path = folder / f"{index}.png"
        Image.fromarray(generator.integers(0, 256, (height, width, 3), np.uint8)).save(path)
        found.append(path)
    return found


@pytest.fixture(scope="session")
def read(exported_family):
    folder = exported_family("trocr")[0]
    model = VisionEncoderDecoderModel.from_pretrained(folder).eval()
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def text_of(path, **settings):
        pixels = processor(Image.open(path), return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            rows = model.generate(pixels, do_sample=False, max_new_tokens=9, **settings)
        return tokenizer.decode(rows[0], skip_special_tokens=True)

    return text_of


def test_a_line_an_image(call, trocr, images, read):
    # The model's own generation config asks for four beams.
    code, out, err = call("read-image", trocr, *images, *LIMIT)
    assert (code, err) == (0, "")
    assert out.splitlines() == [" ".join(read(path).split()) for path in images]
    lines = call("read-image", trocr, *images, *LIMIT, "--num-beams", 1, "--batch", 2, "--json")[1].splitlines()
    assert [json.loads(line)["generated_text"] for line in lines] == [read(path, num_beams=1) for path in images]
    assert [json.loads(line)["image"] for line in lines] == [str(path) for path in images]


def test_a_broken_image(call, trocr, images, read, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(images[0].read_bytes()[:60])
    names = [images[0], broken, images[1]]
    code, _, err = call("read-image", trocr, *names, *LIMIT)
    assert code == 2
    assert str(broken) in one_line(err)
    code, out, err = call("read-image", trocr, *names, *LIMIT, "--skip-errors")
    assert (code, err.count("\n")) == (0, 1)
    assert out.splitlines() == [" ".join(read(path).split()) for path in (images[0], images[1])]
    assert err.startswith(f"note: skipped 1 input that could not be used; the first is argument 2: {broken}")


def test_what_does_not_fit(call, trocr, images, float_bundle):
    assert "reads image, not texts: use `triform read-image`" in one_line(call("rewrite", trocr, "a")[2])
    assert "--batch must be at least 1" in one_line(call("read-image", trocr, images[0], "--batch", 0)[2])
    assert "use `triform generate`" in one_line(call("read-image", float_bundle, images[0])[2])


def test_the_method_reads_what_transformers_reads(trocr, images, read):
    model = triform.load_encoder_decoder(trocr)
    answers = model.read_images([images[0], images[1].read_bytes()], triform.GenerationOptions(max_new_tokens=9))
    assert [answer.text for answer in answers] == [read(path) for path in images[:2]]
