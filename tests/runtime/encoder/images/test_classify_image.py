"""`triform classify-image` from the outside."""

from __future__ import annotations

import io
import json
import sys

import pytest
from PIL import Image

import triform
from tests.helpers.bundles import read_manifest_json, write_manifest
from triform.cli.main import run
from triform.runtime.encoder.image_classification import LABEL_TEMPLATE, classify_images, match_labels


@pytest.fixture
def call(capsys, monkeypatch):
    monkeypatch.delenv("TRIFORM_BUNDLE", raising=False)

    def invoke(*arguments):
        code = run(["classify-image", *(str(argument) for argument in arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return invoke


@pytest.fixture
def vit(exported_image_model):
    return exported_image_model("vit")[1]


@pytest.fixture
def clip(exported_image_model):
    return exported_image_model("clip")[1]


def test_prints_the_best_label_of_each_image(call, vit, images):
    code, out, err = call(vit, *images)
    expected = [found[0] for found in classify_images(triform.load(vit), images)]
    assert (code, err) == (0, "")
    assert out == "".join(
        f"{score:.4f}\t{label}\t{path}\n" for (label, score), path in zip(expected, images, strict=True)
    )


def test_shows_as_many_labels_as_asked_for(call, vit, images):
    lines = call(vit, images[0], images[1], "--top-k", 3)[1].splitlines()
    expected = [one for found in classify_images(triform.load(vit), images[:2]) for one in found[:3]]
    assert [line.split("\t")[:2] for line in lines] == [[f"{score:.4f}", label] for label, score in expected]


def test_json_has_a_line_an_image(call, vit, images):
    code, out, _ = call(vit, *images[:3], "--top-k", 2, "--json")
    found = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [one["image"] for one in found] == [str(path) for path in images[:3]]
    for one, expected in zip(found, classify_images(triform.load(vit), images[:3]), strict=True):
        assert [(label["label"], label["score"]) for label in one["labels"]] == expected[:2]


def test_labels_of_ones_own(call, clip, images):
    labels = ["a boat", "trees"]
    for extra, template in (((), LABEL_TEMPLATE), (("--template", "not {}"), "not {}")):
        out = call(clip, images[0], "--labels", "a boat, trees,", *extra, "--json")[1]
        expected = next(match_labels(triform.load(clip), images, labels, template=template))
        found = json.loads(out)["labels"]
        assert [(one["label"], one["score"]) for one in found] == expected


def test_reads_standard_input(call, vit, images, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(images[0].read_bytes())))
    assert call(vit, "-") == (0, call(vit, images[0])[1].replace(str(images[0]), "-"), "")


def test_a_default_bundle_needs_no_naming(call, vit, images, monkeypatch):
    expected = call(vit, *images[:2])
    monkeypatch.setenv("TRIFORM_BUNDLE", str(vit))
    assert call(*images[:2]) == expected


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        ("vit", [], "no images: give files, or - for standard input"),
        ("vit", ["nowhere.png"], "nowhere.png cannot be read: No such file or directory"),
        ("vit", [__file__], "is not an image of a kind that can be read"),
        ("vit", ["{image}", "--labels", "a,b"], "this model has labels of its own; leave --labels out"),
        ("vit", ["{image}", "--template", "a {}"], "--template needs --labels"),
        ("vit", ["{image}", "--top-k", "0"], "--top-k must be at least 1, not 0"),
        ("clip", ["{image}"], "this model has no labels of its own; give some with --labels"),
        ("clip", ["{image}", "--labels", " , "], "give at least one label"),
        ("clip", ["{image}", "--labels", "a", "--template", "b"], "has {} once"),
    ],
)
def test_what_cannot_be_used_ends_in_one_line(call, exported_image_model, images, model, arguments, message):
    given = [argument.format(image=images[0]) if "image" in argument else argument for argument in arguments]
    code, out, err = call(exported_image_model(model)[1], *given)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1


def test_images_before_a_bad_one_are_labeled(call, vit, images, tmp_path):
    (tmp_path / "bad.png").write_bytes(images[1].read_bytes()[:60])
    code, out, err = call(vit, *images[:8], tmp_path / "bad.png")
    assert (code, out.count("\n")) == (2, 8)
    assert err.startswith(f"error: {tmp_path / 'bad.png'} cannot be read: ")


def test_a_bundle_for_something_else_names_its_command(call, float_bundle, exported_image_model, images):
    code, _, err = call(float_bundle, images[0])
    assert (code, "triform generate" in err) == (1, True)
    code, _, err = call(exported_image_model("dinov2")[1], images[0])
    assert (code, err.count("\n")) == (1, 1)
    assert "this one is for image-feature-extraction" in err


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("image", "resample"), "cubic", "encoder.image.resample must be nearest or"),
        (("image", "resize"), [0, 40], "encoder.image.resize[0] must be at least 1"),
        (("image", "resize"), [], "encoder.image.resize must be"),
        (("image", "height"), 25, "encoder.image.resize must be the image's size [25, 40]"),
        (("image", "crop"), [24, 41], "encoder.image.crop must be the image's size [24, 40]"),
        (("image", "mean"), [0.5], "encoder.image.mean must be a number for each channel"),
        (("image", "channels"), 1, "encoder.image.channels must be 3"),
        (("problem_type",), "guess", "encoder.problem_type must be single_label_classification or"),
        (("image",), None, "encoder.image must be given where a graph takes pixel_values"),
    ],
)
def test_a_damaged_manifest_ends_in_one_line(call, vit, images, tmp_path, path, value, message):
    for file in vit.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    content = read_manifest_json(tmp_path)
    place = content["encoder"]
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    write_manifest(tmp_path, content)
    code, out, err = call(tmp_path, images[0])
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert message in err


def test_help_and_inspect_know_images(capsys, exported_image_model):
    assert run(["classify-image", "--help"]) == 0
    assert "--template" in capsys.readouterr().out
    for name in ("vit", "clip"):
        assert run(["inspect", str(exported_image_model(name)[1])]) == 0
        assert run(["verify", str(exported_image_model(name)[1])]) == 0
        assert "image-classification" in capsys.readouterr().out


def test_a_white_image_is_as_good_as_any(call, vit, tmp_path):
    Image.new("RGB", (1, 1), "white").save(tmp_path / "white.png")
    assert call(vit, tmp_path / "white.png")[0] == 0
