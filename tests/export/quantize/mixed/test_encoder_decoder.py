"""Exports of small encoder-decoders to a goal: it is met over both graphs, measured, or refused in one line."""

from __future__ import annotations

import json
import math

import jiwer
import onnx
import pytest
from transformers import SwitchTransformersConfig, SwitchTransformersForConditionalGeneration

from tests.checkpoints.seq2seq_tokenizers import BUILDERS
from triform import TranscribeOptions, load
from triform.export.options import ExportOptions
from triform.export.pipeline import export
from triform.export.quantize.mixed.encoder_decoder import encoder_decoder_loss
from triform.export.samples.voices import sentences
from triform.runtime.bundle.export_record import QuantizedParity
from triform.runtime.errors import InputError, UnsupportedError
from triform.runtime.evaluation.speech import spoken_words

TABLE = "model.lm_head.weight"


@pytest.fixture(scope="module")
def small(exported_family, tmp_path_factory):
    """Smaller than 6 bits a weight, which neither 4 bits nor 8 bits in every matrix would fill."""
    folder = tmp_path_factory.mktemp("goal") / "bundle"
    return folder, export(str(exported_family("bart")[0]), folder, ExportOptions(target_bits=6.0))


def quantization(folder):
    graphs = json.loads((folder / "manifest.json").read_text())["graphs"]
    return {name: graphs[name]["quantization"] for name in ("encoder", "decoder")}


def test_the_manifest_says_how_each_matrix_of_both_graphs_is_stored(small):
    folder, report = small
    stored = quantization(folder)
    for of_graph in stored.values():
        assert of_graph["scheme"] == report.scheme == "mixed"
        assert len(of_graph["products"]) == of_graph["matrices"] == sum(of_graph["formats"].values())
    assert len(set(stored["encoder"]["products"].values()) | set(stored["decoder"]["products"].values())) > 1


def test_what_both_graphs_read_is_stored_alike_and_once(small):
    folder, _ = small
    encoder, decoder = (of_graph["products"] for of_graph in quantization(folder).values())
    assert encoder[TABLE] == decoder[TABLE]
    assert encoder.keys() & decoder.keys() == {TABLE}
    files = {place for name, place in places(folder, "decoder").items() if name.startswith(TABLE) and "blocks" in name}
    assert files == {"encoder.onnx.data"}


def places(folder, graph):
    """The file that holds each large constant of a graph."""
    model = onnx.load(folder / f"{graph}.onnx", load_external_data=False)
    found = {
        item.name: {entry.key: entry.value for entry in item.external_data}["location"]
        for item in model.graph.initializer
        if item.external_data
    }
    packed = folder / f"{graph}.onnx.packed"
    listed = json.loads(packed.read_text()) if packed.exists() else {}
    return found | {name: item["file"] for name, item in listed.items()}


def test_a_bundle_is_no_larger_than_what_was_chosen(small):
    folder, report = small
    chosen = next(point for point in report.frontier if point.chosen)
    assert 5.0 < chosen.bits <= 6.0
    assert report.size_after == sum(file.stat().st_size for file in folder.iterdir())
    assert report.size_after <= chosen.size


def test_the_estimate_is_near_what_is_measured(small):
    """Errors of several matrices and tokens add up, and 8-bit activations are not in it, so that it is no bound."""
    _, report = small
    chosen = next(point for point in report.frontier if point.chosen)
    assert chosen.damage / 3 < report.parity.quantized.mean_kl < 3 * chosen.damage


def test_the_bundle_answers(small):
    folder, _ = small
    assert load(folder).generate("The evening train was late.").text


def test_a_loss_is_kept_and_measured(exported_family, tmp_path):
    report = export(str(exported_family("bart")[0]), tmp_path / "bundle", ExportOptions(max_loss=0.001))
    divergence = report.parity.quantized.mean_kl
    assert math.expm1(divergence) <= 0.001
    measured = [note for note in report.notes if note.startswith("measured: ")]
    assert any(f"KL {divergence:.4f}" in note for note in measured)
    # A smaller one loses more.
    assert any(point.loss is not None and point.loss > 0.001 for point in report.frontier)


def test_the_loss_of_speech_is_the_share_of_words_that_change_where_that_is_more(exported_family, tmp_path):
    """jiwer counts the same between the transcripts of the float bundle and of this one."""
    checkpoint, original = exported_family("moonshine")
    report = export(str(checkpoint), tmp_path / "bundle", ExportOptions(max_loss=0.3))
    quantized = report.parity.quantized
    error = math.sqrt(quantized.word_errors / quantized.words)
    both = max(quantized.word_errors - error, math.expm1(quantized.mean_kl))
    assert any(point.loss == pytest.approx(both) for point in report.frontier)
    measured = [note for note in report.notes if note.startswith("measured: ")]
    assert all(f"of the {quantized.words} words that the float32 graphs write change, " in note for note in measured)
    expected, actual = (transcripts(folder) for folder in (original, tmp_path / "bundle"))
    understood = [place for place, (_, reliable) in enumerate(expected) if reliable]
    of_both = [[spoken_words(texts[place][0]) for place in understood] for texts in (expected, actual)]
    assert sum(len(text.split()) for text in of_both[0]) == quantized.words
    assert jiwer.wer(*of_both) == pytest.approx(quantized.word_errors)
    recorded = json.loads((tmp_path / "bundle" / "manifest.json").read_text())["export"]["parity"]["quantized"]
    assert (recorded["word_errors"], recorded["words"]) == (quantized.word_errors, quantized.words)


@pytest.mark.parametrize(
    ("word_errors", "words", "mean_kl", "share"),
    [
        # 16 of 400 words, of which the root is 4.
        (0.04, 400, 0.02, 0.03),
        (0.04, 400, math.log(1.05), 0.05),
        (0.0, 400, 0.0, 0.0),
        (None, None, math.log(1.02), 0.02),
        (math.inf, 400, 0.0, math.nan),
    ],
)
def test_the_larger_of_words_less_their_error_and_predictions_counts(word_errors, words, mean_kl, share):
    parity = QuantizedParity(0.9, mean_kl, 3.0, 3.0, 186, word_errors=word_errors, words=words)
    assert encoder_decoder_loss(parity).share == pytest.approx(share, abs=1e-12, nan_ok=True)


def transcripts(folder):
    """Greedy, of at most eight tokens a second; and whether Whisper's thresholds are met."""
    model, found = load(folder), []
    longest = model.info.audio.longest
    for sound in sentences(16000, 0, english=False):
        seconds = min(len(sound) / 16000, longest)
        options = TranscribeOptions(temperatures=(0.0,), num_beams=1, max_new_tokens=round(8 * seconds))
        segments = model.transcribe(sound[: round(16000 * longest)], options)
        reliable = all(item.avg_logprob >= -1 and item.compression_ratio <= 2.4 for item in segments)
        found.append((" ".join(item.text for item in segments), reliable))
    return found


def test_a_model_that_understands_nothing_is_told_by_its_predictions(exported_family, tmp_path):
    report = export(str(exported_family("whisper")[0]), tmp_path / "bundle", ExportOptions(max_loss=0.3))
    assert any("`max_loss` is of predictions and not of words" in note for note in report.notes)
    assert report.parity.quantized.word_errors is None
    assert math.expm1(report.parity.quantized.mean_kl) <= 0.3


def test_a_target_that_is_too_small_is_refused(exported_family, tmp_path):
    with pytest.raises(InputError, match=r"`target_bits` is too small: this model takes at least \d\.\d\d"):
        export(str(exported_family("bart")[0]), tmp_path / "bundle", ExportOptions(target_bits=2.0))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("goal", [{"target_bits": 6.0}, {"max_loss": 0.1}])
def test_mixtures_of_experts_are_refused_before_anything_takes_long(goal, trained, tmp_path):
    tokenizer = BUILDERS["t5"](trained)
    config = SwitchTransformersConfig(
        vocab_size=len(tokenizer) + 3, d_model=40, d_kv=24, d_ff=56, num_layers=2, num_decoder_layers=2, num_heads=3,
        num_experts=4, num_sparse_encoder_layers=1, num_sparse_decoder_layers=1, decoder_start_token_id=0,
    )  # fmt: skip
    SwitchTransformersForConditionalGeneration(config).save_pretrained(tmp_path / "checkpoint")
    tokenizer.save_pretrained(tmp_path / "checkpoint")
    steps: list[str] = []
    with pytest.raises(UnsupportedError, match=r"^`\w+` is for mixtures of experts that are decoders; export with "):
        export(
            str(tmp_path / "checkpoint"), tmp_path / "bundle", ExportOptions(**goal),
            progress=lambda step: steps.append(step.step),
        )  # fmt: skip
    assert steps[-1] == "fuse"
