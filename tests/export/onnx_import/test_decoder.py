"""Decoders of other tools become bundles that write what transformers writes, or are refused by what is unknown."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil

import numpy as np
import onnx
import pytest
import torch
import transformers
from onnx import TensorProto, helper

import triform
from tests.checkpoints.decoders import VOCAB, llama_folder
from tests.checkpoints.onnx_decoders import GroupedLayer, PastLlama, configs_of, merged, traced
from triform import Beams, GenerationOptions
from triform.cli.main import run
from triform.export.onnx_import.decoders.check import check_exact
from triform.export.onnx_import.found import ImportOptions
from triform.export.onnx_import.importing import import_model
from triform.runtime.bundle.export_record import Parity
from triform.runtime.errors import ExportError, InputError, TriformError, UnsupportedError

TEXTS = ["The keeper lit the lamp.", "A ship", "One two three four five six seven eight", "The sea was"]
TOKENS = 9
GREEDY = GenerationOptions(max_new_tokens=TOKENS, temperature=0)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A checkpoint of which every dimension is different."""
    return llama_folder(tmp_path_factory.mktemp("source") / "llama", max_position_embeddings=128, hidden_size=72)


@pytest.fixture(scope="module")
def torch_model(source):
    return transformers.LlamaForCausalLM.from_pretrained(source, attn_implementation="eager").eval()


@pytest.fixture(scope="module")
def tokenizer(source):
    return transformers.AutoTokenizer.from_pretrained(source)


@pytest.fixture(scope="module")
def usual(source, tmp_path_factory):
    """A graph as optimum exports it."""
    return traced(PastLlama(source), tmp_path_factory.mktemp("usual") / "model.onnx")


@pytest.fixture(scope="module")
def bundle(source, usual, tmp_path_factory):
    """The bundle of that graph, by the command."""
    folder = configs_of(source, tmp_path_factory.mktemp("optimum") / "model")
    onnx.save(usual, folder / "model.onnx")
    target = folder.parent / "bundle"
    assert run(["import", str(folder), str(target)]) == 0
    return target


@pytest.fixture(scope="module")
def model(bundle):
    return triform.load_decoder(bundle)


@pytest.fixture(scope="module")
def expected(torch_model, tokenizer):
    """What transformers writes, greedily."""
    return [written(torch_model, tokenizer, text) for text in TEXTS]


def written(torch_model, tokenizer, text, **options):
    ids = tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        answer = torch_model.generate(**ids, max_new_tokens=TOKENS, do_sample=False, **options)
    return tokenizer.decode(answer[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)


def imported(source, graph, tmp_path, **options):
    folder = configs_of(source, tmp_path / "model")
    onnx.save(graph, folder / "model.onnx")
    report = import_model(folder, tmp_path / "bundle", ImportOptions(**options))
    return report, triform.load_decoder(tmp_path / "bundle")


def together(model, batch):
    return [answers[0].text for answers in model.generate_all(TEXTS, GREEDY, batch=batch, raw=True)]


def test_greedy_answers(model, expected):
    assert [model.generate(text, GREEDY, raw=True).text for text in TEXTS] == expected


@pytest.mark.parametrize("batch", [2, 3])
def test_rows_of_different_lengths_together(model, expected, batch):
    assert together(model, batch) == expected


def test_beams(model, torch_model, tokenizer):
    found = model.generate(TEXTS[0], GREEDY, beams=Beams(num_beams=3), raw=True).text
    assert found == written(torch_model, tokenizer, TEXTS[0], num_beams=3)


def test_logits_and_perplexity(model, torch_model, tokenizer):
    text = " ".join(TEXTS)
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        logits = torch_model(ids).logits[0]
    np.testing.assert_allclose(model.logits(text), logits.numpy(), atol=2e-5)
    loss = torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:])
    assert model.perplexity(text) == pytest.approx(float(loss.exp()), rel=1e-5)


def test_speculation_and_what_is_kept_of_a_prompt(model, tmp_path, torch_model, tokenizer):
    text = "one two one two one two one"
    answer = written(torch_model, tokenizer, text)
    looked_up = GenerationOptions(max_new_tokens=TOKENS, temperature=0, speculate="lookup")
    first = model.generate(text, looked_up, raw=True)
    assert first.text == answer
    model.save_prompt_cache(tmp_path / "cache", first.prompt_tokens)
    model.forget()
    model.load_prompt_cache(tmp_path / "cache")
    again = model.generate(text, GREEDY, raw=True)
    assert again.text == answer
    assert again.cached_tokens > 0


def test_text_is_cut_back_and_continued(bundle, torch_model, tokenizer):
    """What a run left in memory is not taken for the cache once tokens were removed or rows moved."""
    ids = tokenizer(" ".join(TEXTS))["input_ids"]
    with torch.no_grad():
        whole = torch_model(torch.tensor([ids])).logits[0].numpy()
        other = torch_model(torch.tensor([ids[:6] + ids[9:12]])).logits[0].numpy()
    step = triform.load_decoder(bundle)._step
    step.prefill(ids[:6])
    np.testing.assert_allclose(step.extend(ids[6:9]), whole[6:9], atol=2e-5)
    step.trim(3)
    np.testing.assert_allclose(step.extend(ids[9:12]), other[6:], atol=2e-5)
    step.trim(3)
    np.testing.assert_allclose(step.next(ids[6]), whole[6], atol=2e-5)


def test_what_the_manifest_says(bundle):
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert (manifest["schema_version"], manifest["max_length"]) == (5, 128)
    assert manifest["cache"]["growth"] == "concatenated"
    assert manifest["cache"]["uneven"] is True
    assert manifest["cache"]["layers"] == [{"num_key_value_heads": 2, "head_dim": 16}] * 3
    assert manifest["export"]["parity"] is None
    assert manifest["graphs"]["decoder"]["notes"]["parity"].endswith("not PyTorch")
    assert [token["text"] for token in manifest["export"]["end_tokens"]] == ["<|end|>"]


def test_a_chat(model):
    assert model.generate([{"role": "user", "content": "Hi"}], GREEDY).prompt_tokens > 4


def test_hidden_states_are_refused_by_name(model):
    options = GenerationOptions(max_new_tokens=3, top_k=4, penalty_alpha=0.6)
    with pytest.raises(UnsupportedError, match="does not give hidden states"):
        model.generate(TEXTS[0], options, raw=True)


def test_a_comparison_with_the_checkpoint(source, usual, tmp_path):
    _, model = imported(source, usual, tmp_path, against=str(source))
    parity = model.manifest.export.parity
    assert 0 < parity.prefill <= parity.tolerance
    assert run(["verify", str(tmp_path / "bundle"), "--against", str(source)]) == 0


def test_another_checkpoint_does_not_match(source, usual, tmp_path):
    other = llama_folder(tmp_path / "other", max_position_embeddings=128, hidden_size=72, rope_theta=100.0)
    with pytest.raises(ExportError, match="does not compute what other does in PyTorch"):
        imported(source, usual, tmp_path, against=str(other))
    assert not (tmp_path / "bundle").exists()


def test_a_graph_that_counts_places_runs_each_length_apart(source, tmp_path, expected):
    """Without position_ids, a token's position is its place, and padding before a row would move it."""
    graph = traced(PastLlama(source, positions=False), tmp_path / "graph.onnx")
    report, model = imported(source, graph, tmp_path)
    assert report.notes == ("rows of different lengths are run apart: this graph cannot run them together",)
    assert model.manifest.cache.uneven is False
    assert together(model, 3) == expected


def test_a_merged_graph(source, usual, tmp_path, expected):
    """The branch without a past does not read it, so the wrong one would not go unnoticed."""
    without = traced(PastLlama(source, past=False), tmp_path / "graph.onnx")
    _, model = imported(source, merged(usual, without), tmp_path)
    assert together(model, 2) == expected


def test_half_floats(source, usual, tmp_path):
    """Keys and values are float32 outside of the graph, whatever they are in it."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    report, model = imported(source, convert_float_to_float16(usual), tmp_path)
    assert {tensor.dtype for tensor in model.manifest.graphs["decoder"].outputs} == {"float32"}
    [note] = report.notes
    assert "rounds its activations" in note


def test_half_floats_in_grouped_attention(source, tokenizer, tmp_path):
    """The operator takes short rows at their beginning, so rows of different lengths are run apart."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    layer = GroupedLayer(VOCAB)
    model = import_grouped(source, convert_float_to_float16(layer.graph()), layer, tmp_path)
    assert (model.manifest.cache.growth, model.manifest.cache.uneven) == ("concatenated", False)
    assert together(model, 3) == answers_of(layer, tokenizer)


def test_numbers_of_other_types_and_a_count_of_logits(source, usual, tmp_path, expected):
    """int32 tokens and mask, and transformers.js' number of logits, of which 0 means all."""

    def change(model):
        graph = model.graph
        for name in ("input_ids", "attention_mask"):
            [value] = [value for value in graph.input if value.name == name]
            value.type.tensor_type.elem_type = TensorProto.INT32
            for node in graph.node:
                node.input[:] = [f"wide_{name}" if item == name else item for item in node.input]
            graph.node.insert(0, helper.make_node("Cast", [name], [f"wide_{name}"], to=TensorProto.INT64))
        graph.input.append(helper.make_tensor_value_info("num_logits_to_keep", TensorProto.INT64, []))
        [last] = [node for node in graph.node if "logits" in node.output]
        last.output[:] = ["all"]
        nodes = [
            helper.make_node("Cast", ["num_logits_to_keep"], ["kept"], to=TensorProto.FLOAT),
            helper.make_node("Cos", ["kept"], ["factor"]),
            helper.make_node("Mul", ["all", "factor"], ["logits"]),
        ]
        graph.node.extend(nodes)

    _, model = imported(source, changed(usual, change), tmp_path)
    assert together(model, 2) == expected
    assert {tensor.name for tensor in model.manifest.graphs["decoder"].inputs if "past_key" not in tensor.name} == {
        "input_ids",
        "past_lengths",
        "logits_positions",
    }


def answers_of(layer, tokenizer):
    """What a layer writes, greedily, by PyTorch."""
    answers = []
    for text in TEXTS:
        row = tokenizer(text)["input_ids"]
        start = len(row)
        while len(row) < start + TOKENS and row[-1] not in (2, 7):
            row.append(int(layer.logits(row)[-1].argmax()))
        answers.append(tokenizer.decode(row[start:], skip_special_tokens=True))
    return answers


def import_grouped(source, graph, layer, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(source / name, folder / name)
    onnx.save(graph, folder / "grouped.onnx", save_as_external_data=True, location="data", size_threshold=64)
    (folder / "genai_config.json").write_text(json.dumps(layer.genai_config(96)))
    import_model(folder, tmp_path / "bundle")
    return triform.load_decoder(tmp_path / "bundle")


def test_a_folder_of_genai(source, tokenizer, tmp_path):
    """Its config alone describes the model; GroupQueryAttention writes into our buffers."""
    layer = GroupedLayer(VOCAB)
    model = import_grouped(source, layer.graph(), layer, tmp_path)
    assert model.manifest.export.notes == []
    assert (model.manifest.schema_version, model.manifest.cache.growth) == (2, "in_place")
    assert (model.manifest.max_length, model.manifest.tokens.eos) == (96, [2, 7])
    ids = tokenizer(TEXTS[2])["input_ids"]
    np.testing.assert_allclose(model.logits(TEXTS[2]), layer.logits(ids), atol=2e-5)
    assert together(model, 3) == answers_of(layer, tokenizer)


def changed(usual, change):
    graph = onnx.ModelProto()
    graph.CopyFrom(usual)
    change(graph)
    return graph


def add_input(name, shape, kind=TensorProto.INT64):
    return lambda model: model.graph.input.append(helper.make_tensor_value_info(name, kind, shape))


def fix_batch(model):
    for value in model.graph.input:
        if value.name == "past_key_values.1.value":
            value.type.tensor_type.shape.dim[0].dim_value = 1


def drop_axis(model):
    for value in model.graph.input:
        if value.name == "past_key_values.0.key":
            del value.type.tensor_type.shape.dim[1]


def drop_output(name):
    def drop(model):
        [value] = [value for value in model.graph.output if value.name == name]
        model.graph.output.remove(value)

    return drop


def drop_past(model):
    for value in [value for value in model.graph.input if value.name.startswith("past_key_values")]:
        model.graph.input.remove(value)


def set_opset(model):
    model.opset_import[0].version = 11


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        (add_input("pixel_values", ["batch", 3]), UnsupportedError, "the input 'pixel_values', which is unknown"),
        (add_input("encoder_hidden_states", ["batch", "n", 7]), UnsupportedError, "'encoder_hidden_states'"),
        (add_input("past_key_values.3.key", ["b", 2, "p", 16], 1), UnsupportedError, "does not give present.3.key"),
        (fix_batch, UnsupportedError, r"past_key_values.1.value as FLOAT of the shape"),
        (drop_axis, UnsupportedError, r"past_key_values.0.key as FLOAT of the shape"),
        (drop_output("logits"), UnsupportedError, "does not give logits"),
        (drop_output("present.2.value"), UnsupportedError, "does not give present.2.value"),
        (drop_past, UnsupportedError, "takes no keys and values of a text so far: choose the graph with a past"),
        (set_opset, ExportError, "opset below 12"),
    ],
)
def test_graphs_that_are_refused(source, usual, tmp_path, change, kind, said):
    with pytest.raises(kind) as failure:
        imported(source, changed(usual, change), tmp_path)
    assert said in str(failure.value)
    assert not (tmp_path / "bundle").exists()


def test_a_graph_that_reads_a_text_in_one_way_only(source, tmp_path):
    """Without a mask among a chunk's tokens only single steps are right."""
    graph = traced(PastLlama(source, masked=False), tmp_path / "graph.onnx")
    with pytest.raises(ExportError, match="in one way only: chunked logits differ"):
        imported(source, graph, tmp_path)


def test_folders_that_are_refused(source, usual, tmp_path):
    def refusal(said, kind=ExportError, **options):
        with pytest.raises(kind) as failure:
            import_model(folder, tmp_path / "bundle", ImportOptions(**options))
        assert said in str(failure.value)
        assert not (tmp_path / "bundle").exists()

    folder = configs_of(source, tmp_path / "model")
    onnx.save(usual, folder / "decoder_model_merged.onnx")
    refusal("`task` is for encoders", InputError, task="fill-mask")
    refusal("more than the model's own limit of 128", InputError, context_length=129)
    # Beside a config.json that says the rest.
    for content, said in (("{}", "'model' is missing"), ('{"model": {"decoder": {"inputs": []}}}', "'items'")):
        (folder / "genai_config.json").write_text(content)
        refusal(said)
    (folder / "genai_config.json").unlink()
    (folder / "tokenizer.json").unlink()
    refusal("has no usable tokenizer")
    (folder / "config.json").unlink()
    refusal("neither config.json nor genai_config.json")
    (folder / "genai_config.json").write_text('{"model": {"type": "llama"}}')
    refusal("'decoder' is missing")


def test_weights_beside_a_graph(source, usual, tmp_path, expected):
    """As tools store them from 2 GB on."""
    folder = configs_of(source, tmp_path / "model")
    copy = changed(usual, lambda _: None)
    onnx.save(copy, folder / "model.onnx", save_as_external_data=True, location="model.onnx_data", size_threshold=0)
    import_model(folder, tmp_path / "bundle")
    shutil.rmtree(folder)
    assert triform.load_decoder(tmp_path / "bundle").generate(TEXTS[0], GREEDY, raw=True).text == expected[0]


def test_a_limit_that_the_graph_does_not_reach(source, tmp_path):
    """A table of positions that ends before the config's limit."""
    short = PastLlama(source)
    table = torch.nn.Embedding.from_pretrained(torch.zeros(60, short.llama.config.hidden_size))
    plain = short.forward

    def with_table(input_ids, attention_mask, position_ids, *pasts):
        logits, *presents = plain(input_ids, attention_mask, position_ids, *pasts)
        return logits + table(position_ids).sum(-1, keepdim=True), *presents

    short.forward = with_table
    report, model = imported(source, traced(short, tmp_path / "graph.onnx"), tmp_path)
    assert report.notes == ("the graph reads 60 tokens at most, not 128 as its config says",)
    assert model.manifest.max_length == 60
    with pytest.raises(TriformError, match="60"):
        model.generate(" ".join(TEXTS * 9), GREEDY, raw=True)


@pytest.mark.parametrize("way", ["prefill", "chunked", "step", "ragged"])
def test_a_difference_that_is_no_number_is_refused(way):
    same = Parity(prefill=0.0, chunked=0.0, step=0.0, ragged=0.0, scale=1.0, tolerance=1e-4)
    check_exact(same, "it does not compute what it should")
    with pytest.raises(ExportError, match="logits differ by nan"):
        check_exact(dataclasses.replace(same, **{way: math.nan}), "it does not compute what it should")


def test_an_empty_graph(source, tmp_path):
    folder = configs_of(source, tmp_path / "model")
    (folder / "model.onnx").write_bytes(b"")
    with pytest.raises(ExportError, match=r"model\.onnx is not a model's graph: it has no inputs or no outputs"):
        import_model(folder, tmp_path / "bundle")


def test_a_weight_that_no_sample_uses_is_no_number(source, usual, tmp_path):
    graph = onnx.ModelProto.FromString(usual.SerializeToString())
    [table] = [value for value in graph.graph.initializer if list(value.dims) == [VOCAB, 72]][:1]
    values = onnx.numpy_helper.to_array(table).copy()
    values[VOCAB - 1, 5] = math.nan
    table.CopyFrom(onnx.numpy_helper.from_array(values, table.name))
    with pytest.raises(ExportError, match="are not all numbers; fetch the model again"):
        imported(source, graph, tmp_path)


def test_a_context_that_no_graph_can_count(source, usual, tmp_path, capsys):
    folder = configs_of(source, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 10**30}))
    onnx.save(usual, folder / "model.onnx")
    with pytest.raises(ExportError, match="llama sets no limit to its context; give one with `context_length`"):
        import_model(folder, tmp_path / "bundle")
    with pytest.raises(InputError, match=f"`context_length` must be at most 2147483647, not {10**30}"):
        import_model(folder, tmp_path / "bundle", ImportOptions(context_length=10**30))
