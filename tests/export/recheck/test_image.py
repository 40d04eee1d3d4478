"""`triform verify --against` of bundles that read images: the numbers of the export, found again."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import onnxruntime as ort
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from tests.checkpoints.images import IMAGE_MODELS, vision_folder
from triform.cli.main import run
from triform.export.describe.image import evaluation_samples
from triform.export.options import ExportOptions
from triform.export.pipeline import export
from triform.runtime.bundle.reading import read_manifest
from triform.runtime.graphs.exact_products import make_products_exact


@pytest.fixture
def verify(capsys):
    def call(bundle, source):
        code = run(["verify", str(bundle), "--against", str(source), "--json"])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_a_float_bundle_matches_its_source(exported_image_model, verify, name):
    folder, bundle = exported_image_model(name)
    code, out, _ = verify(bundle, folder)
    parity = json.loads(out)["parity"]
    assert code == 0
    assert parity["quantized"] is None
    for key in ("batch", "single"):
        assert 0 < parity[key] <= parity["tolerance"]


def test_other_weights_do_not_match(exported_image_model, verify, tmp_path):
    folder, bundle = exported_image_model("clip")
    other = shutil.copytree(folder, tmp_path / "other")
    weights = load_file(folder / "model.safetensors")
    weights["visual_projection.weight"] += 0.01
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    code, out, err = verify(bundle, other)
    assert (code, out) == (1, "")
    assert "outputs differ by" in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("edit", "message"),
    [({"image_mean": [0.5, 0.5, 0.4]}, "makes other pixels of an image"), ({"resample": 0}, "makes other pixels")],
)
def test_another_image_processor(exported_image_model, verify, tmp_path, edit, message):
    folder, bundle = exported_image_model("vit")
    other = shutil.copytree(folder, tmp_path / "other")
    path = other / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **edit}))
    code, out, err = verify(bundle, other)
    assert (code, out) == (1, "")
    assert message in err.splitlines()[-1]


def test_another_scale_of_comparing(exported_image_model, verify, tmp_path):
    folder, bundle = exported_image_model("siglip")
    other = shutil.copytree(folder, tmp_path / "other")
    weights = load_file(folder / "model.safetensors")
    weights["logit_scale"] += 0.5
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    assert "compares images with texts in another way" in verify(bundle, other)[2].splitlines()[-1]


def test_another_model(exported_image_model, verify, tmp_path):
    assert "another architecture" in verify(exported_image_model("vit")[1], exported_image_model("deit")[0])[2]
    fewer = vision_folder(tmp_path / "fewer", "vit", "ViTForImageClassification", num_labels=2, num_hidden_layers=1)
    code, _, err = verify(exported_image_model("vit")[1], fewer)
    assert (code, err.splitlines()[-1]) == (1, "error: the output logits has the shape (4, 7), not (4, 2)")


def test_a_quantized_bundle_is_measured_by_its_scores(verify, capsys, tmp_path):
    """Against scores that PyTorch and onnxruntime give here for the same pixels."""
    folder = vision_folder(tmp_path / "checkpoint", "vit", "ViTForImageClassification", num_hidden_layers=1)
    export(str(folder), tmp_path / "int8", ExportOptions(quantize="int8"))
    manifest = read_manifest(tmp_path / "int8")
    samples = [sample["pixel_values"] for sample in evaluation_samples(manifest.encoder.image, 24)]
    exact = ort.SessionOptions()
    make_products_exact(exact)
    session = ort.InferenceSession(str(tmp_path / "int8" / "encoder.onnx"), exact, providers=["CPUExecutionProvider"])
    model = transformers.ViTForImageClassification.from_pretrained(folder)
    with torch.no_grad():
        expected = model(pixel_values=torch.from_numpy(np.stack(samples))).logits.softmax(-1)
    found = [session.run(["logits"], {"pixel_values": one[None]})[0] for one in samples]
    differences = (torch.from_numpy(np.concatenate(found)).softmax(-1) - expected).abs().amax(1)
    code, out, _ = verify(tmp_path / "int8", folder)
    again, recorded = json.loads(out)["parity"]["quantized"], manifest.export.encoder_parity.quantized
    assert (code, again["rows"], recorded.rows) == (0, 24, 24)
    for mean, worst in ((again["score_mean"], again["score_worst"]), (recorded.score_mean, recorded.score_worst)):
        assert mean == pytest.approx(float(differences.mean()), abs=1e-5)
        assert worst == pytest.approx(float(differences.max()), abs=1e-5)
    assert (again["cosine_mean"], recorded.cosine_worst) == (None, None)
    assert 1e-4 < again["score_worst"] < 0.1
    assert run(["inspect", str(tmp_path / "int8")]) == 0
    line = f"{recorded.score_mean:.5f} mean, {recorded.score_worst:.5f} worst of 24 texts or images"
    assert re.search(rf"^scores off by +{re.escape(line)}$", capsys.readouterr().out, re.MULTILINE)
