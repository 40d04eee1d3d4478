"""No text of an imported decoder grows past the length at which its graph changes the frequencies of positions."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import transformers
from onnx import TensorProto, helper, numpy_helper

import triform
from tests.checkpoints.decoders import VOCAB, llama_folder
from tests.checkpoints.onnx_decoders import GroupedLayer
from triform import GenerationOptions
from triform.export.onnx_import.decoders.rotary_switch import rotary_switch
from triform.export.onnx_import.found import ImportOptions
from triform.export.onnx_import.importing import import_model
from triform.runtime.errors import InputError, TriformError, UnsupportedError

SWITCH, LIMIT = 40, 96
TEXT = "The sea was calm"


def with_two_tables(model: onnx.ModelProto, angle: float, condition: str = "Greater") -> onnx.ModelProto:
    """Positions as onnxruntime-genai's builder gives them to Phi-3: tables that an If chooses by the mask's length.

    Args:
        model: changed in place.
        angle: of the second table, in radians a position; the first turns nothing.
        condition: the operator that compares the length with `SWITCH`.
    """
    graph, half = model.graph, GroupedLayer.width // 2
    branches = {}
    for name, rows, turn in (("then", LIMIT, angle), ("else", SWITCH, 0.0)):
        angles = np.tile(np.arange(rows, dtype=np.float32)[:, None] * np.float32(turn), (1, half))
        tables = {f"cos_{name}": np.cos(angles), f"sin_{name}": np.sin(angles)}
        branches[name] = helper.make_graph(
            [
                helper.make_node("Constant", [], [key], value=numpy_helper.from_array(table))
                for key, table in tables.items()
            ],
            name,
            [],
            [helper.make_tensor_value_info(key, TensorProto.FLOAT, [rows, half]) for key in tables],
        )
    nodes = [
        helper.make_node(condition, ["total", "switch"], ["longer"]),
        helper.make_node("If", ["longer"], ["cos", "sin"], then_branch=branches["then"], else_branch=branches["else"]),
    ]
    graph.initializer.append(numpy_helper.from_array(np.array(SWITCH, np.int64), "switch"))
    [place] = [place for place, node in enumerate(graph.node) if node.op_type == "GroupQueryAttention"]
    graph.node[place].input.extend(["cos", "sin"])
    graph.node[place].attribute.append(helper.make_attribute("do_rotary", 1))
    for node in reversed(nodes):
        graph.node.insert(place, node)
    return model


@pytest.fixture
def folder(tmp_path):
    source = llama_folder(tmp_path / "source")
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(source / name, folder / name)
    return folder


def save(folder, graph, layer):
    onnx.save(graph, folder / "grouped.onnx")
    (folder / "genai_config.json").write_text(json.dumps(layer.genai_config(LIMIT)))


def test_the_context_ends_where_the_tables_change(folder, tmp_path):
    layer = GroupedLayer(VOCAB)
    save(folder, with_two_tables(layer.graph(), angle=0.7), layer)
    report = import_model(folder, tmp_path / "bundle")
    assert any("longest context is 40 tokens" in note and "longrope" in note for note in report.notes)
    model = triform.load_decoder(tmp_path / "bundle")
    assert model.manifest.max_length == SWITCH
    ids = transformers.AutoTokenizer.from_pretrained(folder)(TEXT)["input_ids"]
    np.testing.assert_allclose(model.logits(TEXT), layer.logits(ids), atol=2e-5)
    with pytest.raises(TriformError, match="40"):
        model.generate(TEXT * 20, GenerationOptions(max_new_tokens=2, temperature=0), raw=True)


def test_a_longer_context_is_refused(folder, tmp_path):
    layer = GroupedLayer(VOCAB)
    save(folder, with_two_tables(layer.graph(), angle=0.7), layer)
    with pytest.raises(InputError, match=r"at most 40.*longrope"):
        import_model(folder, tmp_path / "bundle", ImportOptions(context_length=41))
    assert not (tmp_path / "bundle").exists()


def switch_of(model, genai=None, config=None):
    plain = SimpleNamespace(max_position_embeddings=LIMIT)
    plain.get_text_config = lambda: plain
    return rotary_switch(ir.from_proto(model).graph, config or plain, genai, "model.onnx")


def test_where_the_length_stands():
    layer = GroupedLayer(VOCAB)
    assert switch_of(layer.graph()) is None
    assert switch_of(with_two_tables(layer.graph(), angle=0.7)) == SWITCH
    for key in ("multiRotaryCacheConcatOffset", "multi_rotary_cache_concat_offset"):
        genai = layer.genai_config(LIMIT, session_options={"provider_options": [{"webgpu": {key: "24"}}]})
        assert switch_of(layer.graph(), genai) == 24
    config = SimpleNamespace(rope_parameters={"rope_type": "longrope", "original_max_position_embeddings": 17})
    config.get_text_config = lambda: config
    assert switch_of(layer.graph(), config=config) == 17


def test_another_condition_is_refused():
    with pytest.raises(UnsupportedError, match=r"model\.onnx chooses between tables"):
        switch_of(with_two_tables(GroupedLayer(VOCAB).graph(), angle=0.7, condition="Less"))
