"""What encoders of audio and of images are compared on, and how their classes are scored: by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from triform.export.forms.encoders.audio_encoder import (
    AudioEncoder,
    _odd_length,
    audio_batches,
    frame_counts,
    read_at_once,
)
from triform.export.forms.encoders.image_encoder import ImageEncoder, Tower, image_checks
from triform.export.samples.batches import SampleSets
from triform.models.spec import Frames
from triform.runtime.bundle.manifest import ContrastInfo
from triform.runtime.errors import UnsupportedError


def checkpoint(problem_type=None, num_labels=2, task="audio-classification", **others):
    config = SimpleNamespace(problem_type=problem_type, num_labels=num_labels)
    return SimpleNamespace(
        source=SimpleNamespace(task=task, name="m"), model=SimpleNamespace(config=config), tokenizer=None, **others
    )


def audio(lengths, *, mask=None, fixed=False, frames=None, min_length=1, **of_checkpoint):
    samples = [{"x": np.arange(length)} for length in lengths]
    traced = SimpleNamespace(mask=mask, inputs=("x",), frames=frames)
    return AudioEncoder(
        checkpoint(**of_checkpoint), SimpleNamespace(fixed=fixed), traced, min_length,
        SampleSets(samples, [], []), frames,
    )  # fmt: skip


@pytest.mark.parametrize("frames", [Frames(1, 0), Frames(2, 1), Frames(4, -10), Frames(5, 3), Frames(320, -80)])
def test_rows_of_an_odd_number_of_frames(frames):
    """Half a stride more than the least of that number; and no more than there is, but two frames less at most."""
    for longest in range(5 * frames.stride - frames.offset, 9 * frames.stride):
        found = _odd_length(frames, longest)
        count = frames.count(found)
        assert count % 2 == 1 and frames.count(longest) - 2 <= count < frames.count(longest)
        assert frames.count(found - frames.stride // 2 - 1) == count - 1
        assert frames.count(found - frames.stride // 2) == count


@pytest.mark.parametrize(
    ("frames", "least", "lengths"),
    [
        # The shortest of all, a frame less, and a fifth of it, or the least that a model reads.
        (Frames(4, 0), 1, [80, 76, 16]),
        (Frames(4, 0), 16, [80, 76, 16]),
        (Frames(4, 0), 17, [80, 76, 17]),
        (None, 1, [80, 79, 16]),
        (Frames(4, 0), 76, [80, 76]),
        (Frames(70, 0), 1, [80, 16, 10]),
    ],
)
def test_batches_of_one_length(frames, least, lengths):
    encoder = audio([100, 80, 120], frames=frames, min_length=least)
    batches = audio_batches(encoder)
    assert [[len(sample["x"]) for sample in batch] for batch in batches] == [[length] * 3 for length in lengths]
    assert batches[0][2]["x"].tolist() == list(range(80))
    assert encoder.equal_lengths


@pytest.mark.parametrize(("mask", "fixed"), [("attention_mask", False), (None, True)])
def test_one_batch_of_all_lengths(mask, fixed):
    encoder = audio([100, 80, 120], mask=mask, fixed=fixed)
    assert audio_batches(encoder) == [encoder.samples.parity] and not encoder.equal_lengths
    assert not fixed or read_at_once(encoder, None) is encoder


def test_frames_of_samples():
    """(length - 10) // 4, and none of less."""
    encoder = audio([], frames=Frames(4, -10))
    samples = [{"x": np.zeros(length)} for length in (3, 13, 14, 17, 18, 100)]
    assert frame_counts(encoder, samples) == [0, 0, 1, 1, 2, 22]
    assert frame_counts(audio([]), samples) == [3, 13, 14, 17, 18, 100]


@pytest.mark.parametrize(
    ("named", "labels", "of_audio", "of_images"),
    [
        (None, 3, "single_label_classification", "single_label_classification"),
        (None, 1, "single_label_classification", "multi_label_classification"),
        ("single_label_classification", 3, "single_label_classification", "single_label_classification"),
        ("multi_label_classification", 3, "multi_label_classification", "multi_label_classification"),
        ("regression", 1, "regression", "regression"),
        ("regression", 3, "regression", "regression"),
    ],
)
def test_how_classes_are_scored(named, labels, of_audio, of_images):
    """As transformers' pipelines: that of images takes a single label for one of several."""
    assert audio([], problem_type=named, num_labels=labels).problem_type == of_audio
    made = checkpoint(named, labels)
    assert ImageEncoder(made, "image-classification", None, []).problem_type == of_images
    assert ImageEncoder(made, "image-feature-extraction", None, []).problem_type is None
    assert audio([], problem_type=named, task="automatic-speech-recognition").problem_type is None


@pytest.mark.parametrize(("tokenizer", "pad"), [(None, 0), (7, 7), (0, 0), ("none", 0)])
def test_the_token_that_pads(tokenizer, pad):
    made = checkpoint()
    if tokenizer is not None:
        made.tokenizer = SimpleNamespace(pad_token_id=None if tokenizer == "none" else tokenizer)
    assert ImageEncoder(made, "image-classification", None, []).pad == pad


class Contrast(torch.nn.Module):
    """Gives vectors as they are, and scores of its own."""

    def __init__(self, scores):
        super().__init__()
        self.scores = scores
        self.config = SimpleNamespace(problem_type=None, num_labels=2)

    def forward(self, texts=None, pixels=None):
        vectors = texts if pixels is None else pixels
        return SimpleNamespace(vectors=vectors, logits_per_image=self.scores)


TEXTS, IMAGES = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[3.0, 4.0], [0.0, 2.0]])
# Ten times each image's product with each text, less one: the largest is 39.
SCORES = torch.tensor([[29.0, 39.0], [-1.0, 19.0]])


def checked(monkeypatch, scores):
    from triform.export.forms.encoders import image_encoder as module

    monkeypatch.setattr(module, "reference_outputs", lambda model, traced, inputs: (inputs[0],))
    towers = [
        Tower(name, SimpleNamespace(inputs=(key,)), SampleSets([{key: row.numpy()} for row in rows], [name], [key]))
        for name, key, rows in (("encoder", "texts", TEXTS), ("image", "pixels", IMAGES))
    ]
    made = SimpleNamespace(source=SimpleNamespace(name="m"), model=Contrast(scores), tokenizer=None)
    contrast = ContrastInfo(scale=10.0, bias=-1.0, scores="sigmoid", text_length=None)
    return image_checks(ImageEncoder(made, "zero-shot-image-classification", None, towers, contrast))


@pytest.mark.parametrize("by", [0.0, 0.9 * 39e-4, -0.9 * 39e-4])
def test_images_and_texts_are_compared_as_the_manifest_says(monkeypatch, by):
    found = checked(monkeypatch, SCORES + torch.tensor([[0, 0], [by, 0]]))
    assert [check.calibration for check in found] == [["encoder"], ["image"]]
    assert [check.reference[0].outputs[0].tolist() for check in found] == [TEXTS.tolist(), IMAGES.tolist()]


@pytest.mark.parametrize("scores", [SCORES + torch.tensor([[0, 0], [1.1 * 39e-4, 0]]), SCORES.T, -SCORES,
                                    torch.full((2, 2), torch.nan)])  # fmt: skip
def test_other_ways_to_compare_images_with_texts(monkeypatch, scores):
    with pytest.raises(UnsupportedError, match=r"^m cannot be exported: it compares images with texts in its own way$"):
        checked(monkeypatch, scores)
