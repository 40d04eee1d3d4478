"""Each way in which a manifest's description can contradict the tensors of its graphs, by the key that it names."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from triform.runtime.bundle.agreement import disagreements
from triform.runtime.bundle.manifest import Manifest
from triform.runtime.checked_json import build

MANIFESTS = Path(__file__).parent / "manifests"
AUDIO = {
    "kind": "log_mel", "sampling_rate": 16000, "feature_size": 12, "padding_value": 0.0, "chunk_length": 10,
    "win_length": 400, "n_fft": 400, "hop_length": 160,
}  # fmt: skip


def content_of(file):
    return json.loads((MANIFESTS / f"{file}.json").read_text(encoding="utf-8"))


def keys(content):
    return [message.partition(" must be ")[0] for message in disagreements(build(Manifest, content))]


def changed(file, *changes):
    """With another value at each path."""
    content = content_of(file)
    for path, value in changes:
        *way, last = path.split("/")
        place = content
        for key in way:
            place = place[int(key) if isinstance(place, list) else key]
        last = int(last) if isinstance(place, list) else last
        place[last] = value(place.get(last)) if callable(value) else value
    return content


def tensor(name, *shape, dtype="float32"):
    return {"name": name, "dtype": dtype, "shape": ["batch", *shape]}


def without(name):
    """Of a list of tensors."""
    return lambda tensors: [item for item in tensors if item["name"] != name]


def renamed(old, new):
    return lambda tensors: [{**item, "name": new if item["name"] == old else item["name"]} for item in tensors]


def with_one(name, *shape, dtype="float32"):
    return lambda tensors: [*tensors, tensor(name, *shape, dtype=dtype)]


INPUTS, OUTPUTS = "graphs/encoder/inputs", "graphs/encoder/outputs"


@pytest.mark.parametrize("file", [path.stem for path in sorted(MANIFESTS.glob("*.json"))])
def test_exports_agree(file):
    assert keys(content_of(file)) == []


@pytest.mark.parametrize(
    ("file", "changes", "expected"),
    [
        ("embed", [("graphs/image", copy.deepcopy(content_of("vit")["graphs"]["encoder"]))], ["graphs"]),
        ("clip", [("graphs", lambda graphs: {"encoder": graphs["encoder"]})], ["graphs"]),
        ("bart", [("graphs", lambda graphs: {"encoder": graphs["encoder"]})], ["graphs"]),
        # A head without the output that its task needs.
        ("classify", [(OUTPUTS, renamed("logits", "scores"))], ["graphs.encoder.outputs"]),
        ("tag", [(OUTPUTS, without("logits"))], ["graphs.encoder.outputs"]),
        ("answer", [(OUTPUTS, without("start_logits"))], ["graphs.encoder.outputs"]),
        ("answer", [(OUTPUTS, without("end_logits"))], ["graphs.encoder.outputs"]),
        ("clip", [("graphs/image/outputs", renamed("image_embedding", "v"))], ["graphs.image.outputs"]),
        ("clip", [(OUTPUTS, renamed("sentence_embedding", "v"))], ["graphs.encoder.outputs"]),
        # Inputs that nothing feeds.
        ("embed", [(INPUTS, with_one("pixels", 3))], ["graphs.encoder.inputs"]),
        ("vit", [(INPUTS, with_one("attention_mask", 3))], ["graphs.encoder.inputs", "encoder.image.height"]),
        ("clip", [("graphs/image/inputs", with_one("input_ids", 3))], ["graphs.image.inputs", "encoder.image.height"]),
        ("bart", [(INPUTS, with_one("token_type_ids", "length"))], ["graphs.encoder.inputs"]),
        # Vectors.
        ("embed", [("encoder/embedding/dimension", 47)], ["encoder.embedding.dimension"]),
        ("embed", [("encoder/embedding", None)], ["encoder.embedding.dimension"]),
        ("clip", [("encoder/embedding/dimension", 21)], ["encoder.embedding.dimension"] * 2),
        ("tag", [("encoder/hidden_states", 2)], ["encoder.hidden_states"]),
        ("tag", [("encoder/hidden_states", 4)], ["encoder.hidden_states"]),
        ("tag", [(OUTPUTS, renamed("hidden_states.1", "hidden_states.5"))], ["encoder.hidden_states"]),
        ("embed", [("encoder/hidden_states", 1)], ["encoder.hidden_states"]),
        # Widths of logits.
        ("classify", [("encoder/labels", ["bad", "good"])], ["encoder.labels"]),
        ("tag", [("encoder/labels", ["a", "b", "c", "d"])], ["encoder.labels"]),
        ("fill-mask", [("vocab_size", 299)], ["vocab_size"]),
        ("fill-mask", [("vocab_size", 300)], []),
        ("mel-deltas", [("vocab_size", 19)], ["vocab_size"]),
        ("classify", [("task", "next-sentence-prediction")], ["graphs.encoder.outputs"]),
        ("classify", [("task", "next-sentence-prediction"), (f"{OUTPUTS}/0/shape", ["batch", 2])], []),
        # Rows.
        ("classify", [(INPUTS, without("attention_mask"))], ["encoder.equal_lengths"]),
        ("classify", [(INPUTS, without("attention_mask")), ("encoder/equal_lengths", True)], []),
        ("classify", [("encoder/equal_lengths", True)], []),
        ("siglip", [("encoder/contrast/text_length", None)], ["encoder.equal_lengths"]),
        ("embed", [("encoder/embedding/include_prompt", False)], ["encoder.embedding.include_prompt"]),
        ("embed", [(INPUTS, with_one("prompt_lengths"))], ["encoder.embedding.include_prompt"]),
        ("embed", [(INPUTS, with_one("prompt_lengths")), ("encoder/embedding/include_prompt", False)], []),
        ("tag", [(INPUTS, with_one("logits_positions", "n"))], ["task"]),
        ("fill-mask", [(INPUTS, without("logits_positions"))], ["task"]),
        # Boxes.
        ("pages", [("encoder/boxes", None)], ["encoder.boxes"]),
        ("pages", [(INPUTS, without("bbox"))], ["encoder.boxes"]),
        ("pages", [(f"{INPUTS}/3/shape", ["batch", "sequence", 5])], ["encoder.boxes"]),
        ("pages", [(f"{INPUTS}/3/dtype", "float32")], ["encoder.boxes.whole"]),
        ("pages", [(f"{INPUTS}/3/dtype", "float32"), ("encoder/boxes/whole", False)], []),
        ("pages", [("encoder/boxes/whole", False)], ["encoder.boxes.whole"]),
        ("tag", [("encoder/boxes", content_of("pages")["encoder"]["boxes"])], ["encoder.boxes"]),
        # Images.
        ("vit", [("encoder/image", None)], ["encoder.image"]),
        ("clip", [("encoder/image", None)], ["encoder.image"]),
        ("embed", [("encoder/image", content_of("vit")["encoder"]["image"])], ["encoder.image"]),
        ("vit", [("encoder/image/height", 25)], ["encoder.image.height"]),
        ("vit", [("encoder/image/width", 41)], ["encoder.image.height"]),
        ("vit", [("encoder/image/channels", 1)], ["encoder.image.height"]),
        (
            "vit",
            [(INPUTS, renamed("pixel_values", "input_ids"))],
            ["graphs.encoder.inputs", "encoder.image"],
        ),
        ("patches", [("encoder/image/patches/count", 24)], ["encoder.image.patches.count"] * 2),
        ("patches", [("encoder/image/patches/size", 4)], ["encoder.image.patches.count"]),
        ("patches", [(f"{INPUTS}/2/shape", ["batch", 3])], ["encoder.image.patches.count"]),
        ("patches", [(INPUTS, without("spatial_shapes"))], ["encoder.image.patches"]),
        # Sound.
        ("mel-deltas", [("encoder/ctc", None)], ["encoder.ctc", "encoder.labels"]),
        ("mel-deltas", [("encoder/audio", None)], ["encoder.audio", "graphs.encoder.inputs"]),
        ("mel-deltas", [("tokenizer", None)], ["tokenizer"]),
        ("mel-deltas", [("encoder/audio/stacked", 1)], ["encoder.audio.feature_size"]),
        ("mel-deltas", [(f"{INPUTS}/0/shape", ["batch", "sequence", "width"])], []),
        ("mel-deltas", [(f"{INPUTS}/0/shape", ["batch", 320])], ["encoder.audio.feature_size"]),
        ("mel-deltas", [(INPUTS, with_one("padding_mask", "sequence"))], []),
        ("mel-deltas", [(INPUTS, with_one("input_values", "samples"))], ["encoder.audio.kind"]),
        ("mel-deltas", [(INPUTS, renamed("input_features", "input_values"))], ["encoder.audio.kind"]),
        ("mel-deltas", [("encoder/audio/kind", "fbank"), (INPUTS, renamed("input_features", "input_values"))], None),
        ("mel-deltas", [(INPUTS, without("attention_mask"))], ["encoder.equal_lengths"]),
        ("mel-deltas", [(INPUTS, without("attention_mask")), ("encoder/equal_lengths", True)], []),
        ("mel-deltas", [(INPUTS, renamed("attention_mask", "padding_mask"))], []),
        ("embed", [("encoder/ctc", content_of("mel-deltas")["encoder"]["ctc"])], ["encoder.ctc"]),
        (
            "classify",
            [("encoder/audio", content_of("mel-deltas")["encoder"]["audio"])],
            ["encoder.audio", "tokenizer", "encoder.audio.kind"],
        ),
        ("whisper", [("encoder_decoder/audio/feature_size", 13)], ["encoder_decoder.audio.feature_size"]),
        ("whisper", [("encoder_decoder/audio/chunk_length", 11)], ["encoder_decoder.audio.hop_length"]),
        # 16,000 samples a second for ten seconds are a thousand frames of 160.
        ("whisper", [("encoder_decoder/audio/hop_length", 159)], ["encoder_decoder.audio.hop_length"]),
        ("whisper", [(f"{INPUTS}/0/shape", ["batch", "bands", "frames"])], []),
        ("whisper", [(INPUTS, renamed("input_features", "input_values"))], ["encoder_decoder.audio.kind"]),
        ("whisper", [("encoder_decoder/audio/kind", "waveform")], ["encoder_decoder.audio.kind"]),
        (
            "whisper",
            [("encoder_decoder/audio/kind", "waveform"), (INPUTS, [tensor("input_values", "samples")])],
            [],
        ),
        (
            "whisper",
            [("graphs/decoder/outputs", with_one("cross_attentions", 2, "sequence", 500))],
            ["encoder_decoder.speech.alignment_heads"],
        ),
        (
            "whisper",
            [
                ("graphs/decoder/outputs", with_one("cross_attentions", 2, "sequence", 500)),
                ("encoder_decoder/speech/alignment_heads", [[0, 0], [1, 1]]),
            ],
            [],
        ),
        # One of images.
        (
            "bart",
            [
                ("encoder_decoder/source", "image"),
                ("encoder_decoder/image", content_of("vit")["encoder"]["image"]),
                (INPUTS, [tensor("pixel_values", 3, 24, 40)]),
            ],
            [],
        ),
        (
            "bart",
            [
                ("encoder_decoder/source", "image"),
                ("encoder_decoder/image", content_of("vit")["encoder"]["image"]),
                (INPUTS, [tensor("pixel_values", 3, 40, 24)]),
            ],
            ["encoder_decoder.image.height"],
        ),
    ],
)
def test_what_contradicts_the_tensors(file, changes, expected):
    if expected is None:
        # A spectrogram under either name; half as wide, since it has no changes beside its bands.
        changes = [*changes, (f"{INPUTS}/0/shape", ["batch", "sequence", 160]), ("encoder/audio/deltas", None)]
    assert keys(changed(file, *changes)) == (expected or [])


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("embed", ["graphs/image", copy.deepcopy(content_of("vit")["graphs"]["encoder"])],
         "graphs must be ['encoder'], not ['encoder', 'image']"),
        ("classify", [OUTPUTS, renamed("logits", "scores")],
         "graphs.encoder.outputs must be such that logits is among them, not ['scores']"),
        ("embed", [INPUTS, with_one("pixels")],
         "graphs.encoder.inputs must be among attention_mask, bbox, input_ids, logits_positions, prompt_lengths, "
         "token_type_ids, not ['attention_mask', 'input_ids', 'pixels', 'token_type_ids']"),
        ("embed", ["encoder/embedding/dimension", 47],
         "encoder.embedding.dimension must be 48 as in sentence_embedding, not 47"),
        ("tag", ["encoder/hidden_states", 2], "encoder.hidden_states must be 3, as many as graphs give, not 2"),
        ("classify", ["encoder/labels", lambda labels: labels[:2]],
         "encoder.labels must be as many as 3 as in logits, not '2 labels'"),
        ("embed", ["encoder/embedding/include_prompt", False],
         "encoder.embedding.include_prompt must be false where the graph takes prompt_lengths, and only there, "
         "not False"),
        ("pages", ["encoder/boxes", None],
         "encoder.boxes must be given where the graph takes bbox, and only there, not False"),
        ("pages", ["encoder/boxes/whole", False], "encoder.boxes.whole must be True for int64, not False"),
        ("vit", ["encoder/image", None],
         "encoder.image must be given where a graph takes pixel_values, and only there, not False"),
        ("vit", ["encoder/image/height", 25],
         "encoder.image.height must be as in batch, 3, 24, 40 as in pixel_values, not [3, 25, 40]"),
        ("mel-deltas", ["encoder/audio", None],
         "encoder.audio must be as automatic-speech-recognition needs, not False"),
        ("mel-deltas", ["tokenizer", None],
         "tokenizer must be given for a model that writes, and only there, not False"),
        ("mel-deltas", ["encoder/ctc", None],
         "encoder.ctc must be given for speech recognition, and only there, not False"),
        ("whisper", ["encoder_decoder/audio/hop_length", 159],
         "encoder_decoder.audio.hop_length must be such that a chunk has the frames of batch, 12, 1000 as in "
         "input_features, not 159"),
        ("whisper", ["graphs/decoder/outputs", with_one("cross_attentions", 2, 5, "source")],
         "encoder_decoder.speech.alignment_heads must be as many as 2 as in cross_attentions, not '0 heads'"),
    ],
)  # fmt: skip
def test_what_is_said_of_a_contradiction(file, changes, message):
    """The value of the key, and what the tensors ask for."""
    said = list(disagreements(build(Manifest, changed(file, tuple(changes)))))
    assert message in said


def prompts(content, **changes):
    """With a second graph for prompts, which has other weights in the same tensors."""
    content["graphs"]["prompts"] = {**copy.deepcopy(content["graphs"]["decoder"]), **changes}
    return content


def test_a_graph_for_prompts_has_the_tensors_of_the_other():
    assert keys(prompts(content_of("decoder"))) == []
    graph = content_of("decoder")["graphs"]["decoder"]
    for side in ("inputs", "outputs"):
        assert keys(prompts(content_of("decoder"), **{side: graph[side][:-1]})) == [f"graphs.prompts.{side}"]
    # Only decoders for processors have one.
    assert keys(prompts({**content_of("decoder"), "target": "gpu"})) == ["graphs"]
    assert keys(prompts({**content_of("bart"), "target": "cpu"})) == ["graphs"]
