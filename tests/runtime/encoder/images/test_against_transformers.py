"""Scores and vectors of bundles against transformers' pipelines and models with the same weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
from PIL import Image, ImageOps

import triform
from tests.checkpoints.images import LABELS, clip_folder, vision_folder
from triform.export.options import ExportOptions
from triform.export.pipeline import export
from triform.runtime.encoder.image_classification import classify_images, match_labels
from triform.runtime.errors import BundleError, InputError, UnsupportedError

# The order of float32 sums is the only difference.
TOLERANCE = 1e-5


def pipeline(task, folder):
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    return transformers.pipeline(task, model=str(folder), image_processor=processor)


def upright(path):
    return ImageOps.exif_transpose(Image.open(path)).convert("RGB")


def assert_same_ranking(found, expected):
    assert [label for label, _ in found] == [one["label"] for one in expected]
    np.testing.assert_allclose([score for _, score in found], [one["score"] for one in expected], atol=TOLERANCE)


# vit gives probabilities that sum to 1, beit numbers as they are, and deit a probability of its only label.
@pytest.mark.parametrize("name", ["vit", "beit", "deit", "convnext", "mobilevit", "siglip2 with labels"])
def test_scores_are_those_of_the_pipeline(exported_image_model, images, name):
    folder, bundle = exported_image_model(name)
    expected = pipeline("image-classification", folder)([str(path) for path in images], top_k=len(LABELS))
    found = triform.load_encoder(bundle).classify_images(images)
    assert len(found) == len(images)
    for one, wanted in zip(found, expected, strict=True):
        assert_same_ranking(one, wanted)


def test_vectors_are_the_models_pooled_output(exported_image_model, images):
    folder, bundle = exported_image_model("dinov2")
    model = transformers.AutoModel.from_pretrained(folder)
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    with torch.no_grad():
        inputs = processor(images=[upright(path) for path in images], return_tensors="pt")
        expected = model(**inputs).pooler_output.numpy()
    loaded = triform.load(bundle)
    found = loaded.embed_images(images)
    assert found.dtype == np.float32
    assert found.shape == (len(images), loaded.info.embedding.dimension)
    np.testing.assert_allclose(found, expected, atol=TOLERANCE * np.abs(expected).max())


def test_no_images_have_no_vectors(exported_image_model):
    assert triform.load(exported_image_model("dinov2")[1]).embed_images([]).shape == (0, 48)


def test_a_pooler_without_weights_is_not_used(tmp_path, images):
    folder = vision_folder(tmp_path / "checkpoint", "vit", "ViTForImageClassification", num_hidden_layers=1)
    options = ExportOptions(quantize="none", task="image-feature-extraction", hidden_states=True)
    export(str(folder), tmp_path / "bundle", options)
    model = transformers.ViTForImageClassification.from_pretrained(folder)
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    with torch.no_grad():
        inputs = processor(images=[upright(path) for path in images[:2]], return_tensors="pt")
        states = model.vit(**inputs, output_hidden_states=True)
    loaded = triform.load(tmp_path / "bundle")
    assert loaded.info.embedding.pooling == "cls"
    expected = states.last_hidden_state[:, 0].numpy()
    np.testing.assert_allclose(loaded.embed_images(images[:2]), expected, atol=TOLERANCE * abs(expected).max())
    assert loaded.info.hidden_states == len(states.hidden_states)
    names = [f"hidden_states.{index}" for index in range(loaded.info.hidden_states)]
    for found, state in zip(
        loaded.images.feed({"pixel_values": inputs["pixel_values"].numpy()}, names), states.hidden_states, strict=True
    ):
        np.testing.assert_allclose(found, state.numpy(), atol=TOLERANCE * float(state.abs().max()))


@pytest.mark.parametrize("name", ["clip", "siglip", "siglip2"])
@pytest.mark.parametrize(
    ("labels", "template"), [(["boat", "a dog  in the RAIN", "ferry, <b>"], "It's {}!"), (["x"], "no {} yet")]
)
def test_any_labels_score_as_in_the_pipeline(exported_image_model, images, name, labels, template):
    folder, bundle = exported_image_model(name)
    pipe = pipeline("zero-shot-image-classification", folder)
    found = triform.load_encoder(bundle).match_labels(images, labels, template=template)
    for path, one in zip(images, found, strict=True):
        assert_same_ranking(one, pipe(str(path), candidate_labels=labels, hypothesis_template=template))


@pytest.mark.parametrize("name", ["clip", "siglip", "siglip2"])
def test_both_towers_give_the_models_embeddings(exported_image_model, images, name):
    folder, bundle = exported_image_model(name)
    model = transformers.AutoModel.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    # The last is longer than the model can read.
    texts = ["a boat", "two cats asleep beside a very long lorry", "the harbor " * 60]
    padding = {"padding": True} if name == "clip" else {"padding": "max_length"}
    words = tokenizer(texts, return_tensors="pt", truncation=True, **padding)
    pixels = processor(images=[upright(path) for path in images], return_tensors="pt")
    with torch.no_grad():
        expected = model(**words, **pixels)
    loaded = triform.load(bundle)
    np.testing.assert_allclose(loaded.embed_images(images), expected.image_embeds.numpy(), atol=TOLERANCE)
    np.testing.assert_allclose(loaded.embed(texts), expected.text_embeds.numpy(), atol=TOLERANCE)


def test_a_clip_of_the_first_kind_finds_the_end_by_its_number(tmp_path):
    folder = clip_folder(tmp_path / "checkpoint", layers=1, eos_token_id=2)
    export(str(folder), tmp_path / "bundle", ExportOptions(quantize="none"))
    model, texts = transformers.AutoModel.from_pretrained(folder), ["a boat", "two cats asleep beside a long lorry"]
    words = transformers.AutoTokenizer.from_pretrained(folder)(texts, return_tensors="pt", padding=True)
    with torch.no_grad():
        expected = torch.nn.functional.normalize(model.get_text_features(**words).pooler_output).numpy()
    np.testing.assert_allclose(triform.load(tmp_path / "bundle").embed(texts), expected, atol=TOLERANCE)


def test_an_int8_bundle_stays_close(tmp_path, images):
    changes = {"num_hidden_layers": 1, "problem_type": "multi_label_classification"}
    folder = vision_folder(tmp_path / "checkpoint", "vit", "ViTForImageClassification", **changes)
    export(str(folder), tmp_path / "int8", ExportOptions(quantize="int8"))
    loaded = triform.load(tmp_path / "int8")
    assert loaded.manifest.graphs["encoder"].quantization.matrices == 4
    pipe = pipeline("image-classification", folder)
    for path, found in zip(images, classify_images(loaded, images), strict=True):
        expected = {one["label"]: one["score"] for one in pipe(str(path), top_k=len(LABELS))}
        assert max(abs(expected[label] - score) for label, score in found) < 0.02
        assert sum(score for _, score in found) == pytest.approx(sum(expected.values()), abs=0.03)


@pytest.mark.parametrize("template", ["a photo", "{} and {}", ""])
def test_a_template_has_one_place_for_the_label(exported_image_model, images, template):
    with pytest.raises(InputError, match="once"):
        next(match_labels(triform.load(exported_image_model("clip")[1]), images, ["cat"], template=template))


@pytest.mark.parametrize("labels", [[], ["cat", " "]])
def test_labels_are_not_empty(exported_image_model, images, labels):
    with pytest.raises(InputError, match="at least one label"):
        next(match_labels(triform.load(exported_image_model("clip")[1]), images, labels))


def test_tasks_are_told_apart(exported_image_model, images):
    with pytest.raises(UnsupportedError, match="image-classification; this one is for zero-shot"):
        next(classify_images(triform.load(exported_image_model("clip")[1]), images))
    with pytest.raises(UnsupportedError, match="zero-shot-image-classification; this one is for image-classification"):
        next(match_labels(triform.load(exported_image_model("vit")[1]), images, ["cat"]))
    with pytest.raises(UnsupportedError, match="reads no text"):
        triform.load(exported_image_model("vit")[1]).reader()


def test_a_manifest_with_fewer_labels_than_the_graph_is_refused(exported_image_model, images):
    model = triform.load(exported_image_model("vit")[1])
    model.info.labels.pop()
    with pytest.raises(BundleError, match="names 6 labels for a graph that gives 7"):
        next(classify_images(model, images))
