"""Encoder-decoders of other tools become bundles that write what transformers writes, or are refused by their fault."""

from __future__ import annotations

import itertools
import json
import shutil

import numpy as np
import onnx
import pytest
import torch
import transformers
from onnx import TensorProto, helper

import triform
from tests.checkpoints.encoder_decoder_families import folder_of
from tests.checkpoints.onnx_encoder_decoders import Graphs, bare, traced
from triform import Beams, GenerationOptions, TranscribeOptions
from triform.cli.main import run
from triform.export.onnx_import.encoder_decoders.parts import find_parts
from triform.export.onnx_import.found import ImportOptions
from triform.export.onnx_import.importing import import_model
from triform.runtime.errors import ExportError, InputError, UnsupportedError

TEXTS = ["There is an old argument.", "a", "The museum is open from nine to five, and closed on Mondays.", "Not far!"]
TOKENS = 11
GREEDY = GenerationOptions(max_new_tokens=TOKENS)
# The model's own defaults ask for beams and penalties.
PLAIN = {"do_sample": False, "max_new_tokens": TOKENS}


@pytest.fixture(scope="module")
def source(trained, tmp_path_factory):
    """A BART of which every dimension is different."""
    return folder_of("bart", tmp_path_factory.mktemp("source") / "bart", trained)


@pytest.fixture(scope="module")
def graphs(source, tmp_path_factory):
    return traced(source, tmp_path_factory.mktemp("graphs"))


@pytest.fixture(scope="module")
def torch_model(source):
    return transformers.AutoModelForSeq2SeqLM.from_pretrained(source).eval()


@pytest.fixture(scope="module")
def tokenizer(source):
    return transformers.AutoTokenizer.from_pretrained(source)


@pytest.fixture(scope="module")
def bundle(source, graphs, tmp_path_factory):
    """By the command, of three files, and compared with PyTorch."""
    folder = tmp_path_factory.mktemp("optimum")
    graphs.save(bare(source, folder / "model"))
    assert run(["import", str(folder / "model"), str(folder / "bundle"), "--against", str(source)]) == 0
    return folder / "bundle"


@pytest.fixture(scope="module")
def model(bundle):
    return triform.load_encoder_decoder(bundle)


def written(torch_model, tokenizer, **options):
    """The tokens that transformers writes about each text, to the first that ends an answer."""
    ends, answers = torch_model.generation_config.eos_token_id, []
    for text in TEXTS:
        inputs = tokenizer(text, return_tensors="pt")
        [row] = torch_model.generate(**inputs, **PLAIN, **options).tolist()
        end = next((place for place, token in enumerate(row) if place and token in ends), len(row) - 1)
        answers.append(row[1 : end + 1])
    return answers


def answers_of(model, beams, batch):
    found = model.generate_all(TEXTS, GREEDY, beams=Beams(num_beams=beams), batch=batch)
    return [list(best.token_ids) for best, *_ in found]


def imported(source, graphs, tmp_path, **options):
    graphs.save(bare(source, tmp_path / "model"))
    report = import_model(tmp_path / "model", tmp_path / "bundle", ImportOptions(**options))
    return report, triform.load_encoder_decoder(tmp_path / "bundle")


@pytest.mark.parametrize(("beams", "batch"), [(1, 1), (1, 3), (3, 2)])
def test_what_is_written(model, torch_model, tokenizer, beams, batch):
    assert answers_of(model, beams, batch) == written(torch_model, tokenizer, num_beams=beams)


def test_a_stream(model):
    asked = GenerationOptions(max_new_tokens=TOKENS)
    pieces = "".join(piece.text for piece in model.stream(TEXTS[0], asked))
    assert pieces == model.generate(TEXTS[0], asked, beams=Beams(num_beams=1)).text


def test_what_the_manifest_says(bundle, source):
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert manifest["schema_version"] == 5
    assert manifest["cache"]["layers"] == [{"num_key_value_heads": 2, "head_dim": 24}] * 2
    assert (manifest["cache"]["growth"], manifest["cache"]["uneven"]) == ("concatenated", False)
    assert manifest["cache"]["single"] is False
    parity = manifest["export"]["parity"]
    assert 0 < max(parity[way] for way in ("prefill", "chunked", "step", "ragged")) <= parity["tolerance"]
    assert manifest["graphs"]["encoder"]["notes"]["parity"].endswith("PyTorch, on the same")
    own = sum(value.numel() for value in transformers.AutoModelForSeq2SeqLM.from_pretrained(source).parameters())
    assert manifest["parameters"] == own
    assert run(["verify", str(bundle), "--against", str(source)]) == 0


def test_merged_decoders_of_one_kind(source, graphs, tmp_path, torch_model, tokenizer):
    """As transformers.js names them: the file that is named says which of the others go with it."""
    folder = bare(source, tmp_path / "model")
    graphs.save_merged(folder / "onnx", "_q4")
    graphs.save_merged(folder / "onnx", "_fp16")
    with pytest.raises(InputError, match=r"onnx/encoder_model_fp16\.onnx, onnx/encoder_model_q4\.onnx"):
        import_model(folder, tmp_path / "bundle")
    chosen = "onnx/decoder_model_merged_q4.onnx"
    report = import_model(folder, tmp_path / "bundle", ImportOptions(file=chosen))
    assert [path.name for path in report.graphs] == ["encoder_model_q4.onnx", "decoder_model_merged_q4.onnx"]
    mixed = find_parts(folder, chosen, "onnx/encoder_model_fp16.onnx")
    assert [path.name for path in mixed.paths] == ["encoder_model_fp16.onnx", "decoder_model_merged_q4.onnx"]
    model = triform.load_encoder_decoder(tmp_path / "bundle")
    assert "If" not in model.manifest.graphs["decoder"].operators
    assert answers_of(model, 1, 4) == written(torch_model, tokenizer, num_beams=1)


def test_half_floats(source, graphs, tmp_path, torch_model, tokenizer):
    from onnxruntime.transformers.float16 import convert_float_to_float16

    halves = Graphs(*(convert_float_to_float16(graph) for graph in (graphs.encoder, graphs.first, graphs.past)))
    _, model = imported(source, halves, tmp_path)
    kinds = {tensor.dtype for tensor in model.manifest.graphs["encoder"].outputs}
    assert kinds == {"float32", "int32"}
    inputs = tokenizer(TEXTS[:2], return_tensors="pt", padding=True)
    rows = [[2, 21, 31], [2, 22, 32]]
    with torch.no_grad():
        expected = torch_model(**inputs, decoder_input_ids=torch.tensor(rows)).logits[:, -1].numpy()
    arrays = {name: array.numpy() for name, array in inputs.items()}
    found = model.reader.batch_step(model.reader.read(arrays)).prefill(rows)
    np.testing.assert_allclose(found, expected, atol=0.01 * float(np.abs(expected).max()))


@pytest.fixture(scope="module")
def speech(trained, tmp_path_factory):
    return folder_of("whisper", tmp_path_factory.mktemp("source") / "whisper", trained)


@pytest.fixture(scope="module")
def by_steps(speech, tmp_path_factory):
    """A Whisper whose second graph does not hide a chunk's tokens from each other."""
    folder = tmp_path_factory.mktemp("steps")
    graphs = traced(speech, folder / "graphs", masked=False)
    graphs.save(bare(speech, folder / "model"))
    report = import_model(folder / "model", folder / "bundle")
    return report, folder / "bundle"


def test_rows_of_different_lengths_of_a_graph_for_single_steps(speech, by_steps):
    """Each run has one token, of rows of one length, each with its own source."""
    report, bundle = by_steps
    assert [note for note in report.notes if "token by token" in note]
    whole = transformers.AutoModelForSpeechSeq2Seq.from_pretrained(speech).eval()
    sizes = whole.config.num_mel_bins, 2 * whole.config.max_source_positions
    sounds = np.random.default_rng(0).standard_normal((2, *sizes)).astype(np.float32)
    model = triform.load_speech(bundle)
    assert model.manifest.cache.single is True
    step = model.reader.batch_step(model.reader.read({"input_features": sounds}))

    def logits(sound, ids):
        with torch.no_grad():
            features = torch.from_numpy(sounds[sound : sound + 1])
            return whole(input_features=features, decoder_input_ids=torch.tensor([ids])).logits[0, -1].numpy()

    rows = [[11, 12, 13], [21, 22, 23, 24, 25]]
    found = step.prefill(rows)
    np.testing.assert_allclose(found, [logits(0, rows[0]), logits(1, rows[1])], atol=2e-5)
    # The first is continued in two ways, and then the second one alone.
    found = step.next([31, 32, 33], [0, 0, 1])
    expected = [logits(0, [*rows[0], 31]), logits(0, [*rows[0], 32]), logits(1, [*rows[1], 33])]
    np.testing.assert_allclose(found, expected, atol=2e-5)
    np.testing.assert_allclose(step.next([41, 42], [1, 2]), [
        logits(0, [*rows[0], 32, 41]), logits(1, [*rows[1], 33, 42]),
    ], atol=2e-5)  # fmt: skip
    np.testing.assert_allclose(step.next([51], [1]), [logits(1, [*rows[1], 33, 42, 51])], atol=2e-5)


def test_word_timestamps_are_refused_by_name(by_steps):
    asked = TranscribeOptions(word_timestamps=True)
    with pytest.raises(UnsupportedError, match="no word timestamps"):
        triform.load_speech(by_steps[1]).transcribe(np.zeros(16000, np.float32), asked)


def changed(graph, change):
    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    change(copy.graph)
    return copy


def add_input(name, shape, kind=TensorProto.INT64):
    return lambda graph: graph.input.append(helper.make_tensor_value_info(name, kind, shape))


def rename(before, after):
    def change(graph):
        for value in (*graph.input, *graph.output):
            value.name = value.name.replace(before, after)
        for node in graph.node:
            node.input[:] = [name.replace(before, after) for name in node.input]
            node.output[:] = [name.replace(before, after) for name in node.output]

    return change


def drop(kind, name):
    def change(graph):
        values = getattr(graph, kind)
        [value] = [value for value in values if value.name == name]
        values.remove(value)

    return change


def resize(name, axis, size):
    def change(graph):
        [value] = [value for value in (*graph.input, *graph.output) if value.name == name]
        value.type.tensor_type.shape.dim[axis].dim_value = size

    return change


def drop_layer(graph):
    for values in (graph.input, graph.output):
        for value in [value for value in values if ".1." in value.name]:
            values.remove(value)


@pytest.mark.parametrize(
    ("part", "change", "said"),
    [
        ("encoder", add_input("pixel_values", ["b", 3]), "'pixel_values': an encoder of texts takes input_ids and"),
        ("encoder", resize("input_ids", 0, 1), "takes input_ids of the fixed shape"),
        ("encoder", resize("last_hidden_state", 2, 47), "not of one model: encoder_hidden_states has the size (47,)"),
        ("past", add_input("speaker", ["b", 7]), "the input 'speaker', which is unknown"),
        ("past", drop_layer, "decoder_model.onnx has 2 layers, and decoder_with_past_model.onnx takes the keys"),
        ("past", resize("past_key_values.1.encoder.key", 1, 4), "one model: layer.1.encoder.key has the size (2, 24)"),
        ("past", resize("logits", 2, 77), "not of one model: logits has the size"),
        ("past", rename("past_key_values.", "past_key_self_"), "takes 'past_key_self_0.decoder.key', and not past_key"),
        ("past", rename("encoder_attention_mask", "mask"), "does not take encoder_attention_mask, so that it would"),
        ("past", drop("output", "present.1.decoder.value"), "does not give present.1.decoder.value"),
        ("first", drop("output", "present.0.encoder.key"), "does not give present.0.encoder.key: its cache has"),
    ],
)  # fmt: skip
def test_graphs_that_are_refused(source, graphs, tmp_path, part, change, said):
    parts = {name: getattr(graphs, name) for name in ("encoder", "first", "past")}
    parts[part] = changed(parts[part], change)
    with pytest.raises(UnsupportedError) as failure:
        imported(source, Graphs(**parts), tmp_path)
    assert said in str(failure.value)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_folders_that_are_refused(source, graphs, tmp_path):
    def refusal(said, kind=ExportError, **options):
        with pytest.raises(kind) as failure:
            import_model(folder, tmp_path / "bundle", ImportOptions(**options))
        assert said in str(failure.value)
        assert [path.name for path in tmp_path.iterdir()] == ["model"]

    folder = graphs.save(bare(source, tmp_path / "model"))
    refusal("is an encoder-decoder", InputError, task="fill-mask")
    refusal("more than the model's own limit", InputError, context_length=4096)
    refusal("has no encoder onnx/encoder_model.onnx", InputError, encoder_file="onnx/encoder_model.onnx")
    refusal("other.onnx is no decoder", InputError, file="other.onnx", encoder_file="encoder_model.onnx")
    refusal("has no encoder decoder_model.onnx", InputError, encoder_file="decoder_model.onnx")
    refusal(
        "lacks encoder_model_q4.onnx",
        file=shutil.copy(folder / "decoder_model.onnx", folder / "decoder_model_q4.onnx").name,
    )
    refusal(
        "has decoder_model.onnx, decoder_with_past_model.onnx, encoder_model.onnx: `file` names",
        file="decoder_model_q4.onnx",
    )
    (folder / "decoder_with_past_model.onnx").unlink()
    refusal("lacks decoder_with_past_model.onnx, or decoder_model_merged.onnx")
    refusal("of other kinds it has decoder_model_q4.onnx: `file` names a decoder, `encoder_file` its encoder")
    (folder / "decoder_with_past_model.onnx").write_bytes(b"no graph")
    refusal("cannot be read as an ONNX graph")
    (folder / "config.json").unlink()
    refusal("has no config.json: name the checkpoint")


def scale_largest(graph):
    largest = max(graph.initializer, key=lambda tensor: len(tensor.raw_data))
    largest.raw_data = (np.frombuffer(largest.raw_data, np.float32) * 1.5).tobytes()


def test_another_checkpoint_and_other_weights_do_not_match(source, graphs, speech, trained, tmp_path):
    with pytest.raises(ExportError, match="is another model: whisper with"):
        imported(source, graphs, tmp_path, against=str(speech))
    other = transformers.AutoModelForSeq2SeqLM.from_pretrained(source)
    with torch.no_grad():
        other.model.decoder.layers[1].fc2.weight *= 1.5
    strange = shutil.copytree(source, tmp_path / "strange")
    other.save_pretrained(strange)
    with pytest.raises(ExportError, match="do not compute what strange does in PyTorch"):
        import_model(tmp_path / "model", tmp_path / "bundle", ImportOptions(against=str(strange)))
    # Graphs of two models of one size differ in numbers alone.
    onnx.save(changed(graphs.past, scale_largest), tmp_path / "model" / "decoder_with_past_model.onnx")
    with pytest.raises(ExportError, match="or these are not of one model: logits"):
        import_model(tmp_path / "model", tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("name", ["", "nowhere"])
def test_a_choice_without_its_input(source, graphs, tmp_path, capfd, name):
    folder = bare(source, tmp_path / "model")
    graphs.save_merged(folder)
    path = folder / "decoder_model_merged.onnx"
    model = onnx.load(path)
    [choice] = [node for node in model.graph.node if node.op_type == "If"]
    del choice.input[:]
    choice.input.extend([name] if name else [])
    onnx.save(model, path)
    assert run(["import", str(folder), str(tmp_path / "out")]) == 1
    [line] = [line for line in capfd.readouterr().err.splitlines() if not line.endswith("…")]
    assert line.startswith("error: ") and "internal" not in line
    assert not (tmp_path / "out").exists()


def test_a_choice_behind_thousands_of_nodes_that_do_nothing(source, graphs, tmp_path):
    folder = bare(source, tmp_path / "model")
    graphs.save_merged(folder)
    path = folder / "decoder_model_merged.onnx"
    model = onnx.load(path)
    [choice] = [node for node in model.graph.node if node.op_type == "If"]
    place = list(model.graph.node).index(choice)
    names = [choice.input[0], *(f"same{index}" for index in range(3000))]
    for offset, (before, after) in enumerate(itertools.pairwise(names)):
        model.graph.node.insert(place + offset, helper.make_node("Identity", [before], [after]))
    choice.input[0] = names[-1]
    onnx.save(model, path)
    import_model(folder, tmp_path / "out", ImportOptions())
    assert triform.load_encoder_decoder(tmp_path / "out").manifest.graphs["decoder"].operators.get("If") is None
