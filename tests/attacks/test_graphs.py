"""Graphs that an intact manifest lists, and that need what no bundle needs: each is refused in one line."""

from __future__ import annotations

import os

import onnx
import pytest
from onnx import helper

import triform
from tests.helpers.bundles import adopt
from triform.runtime.errors import BundleError


def change_graph(bundle, edit):
    graph = onnx.load(bundle / "decoder.onnx", load_external_data=False)
    edit(graph)
    adopt(bundle, "decoder.onnx", graph.SerializeToString())


def refusal(bundle):
    with pytest.raises(BundleError) as caught:
        triform.load(bundle)
    assert str(caught.value).isprintable()
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "domain", "imported", "said"),
    [
        ("Boom", "com.example", True, "needs the operator com.example:Boom, which onnxruntime"),
        ("Boom", "com.example", False, "needs operators of the domain com.example, which onnxruntime"),
        # onnxruntime-extensions runs Python's functions under this name, where a program has loaded it.
        ("PyOp", "ai.onnx.contrib", True, "needs the operator ai.onnx.contrib:PyOp"),
        ("Boom", "com.microsoft", False, "needs the operator com.microsoft:Boom"),
        ("Boom", "", False, "needs the operator Boom, which"),
    ],
)
def test_operators_that_onnxruntime_does_not_have(own_bundle, name, domain, imported, said):
    def edit(graph):
        graph.graph.node.insert(0, helper.make_node(name, ["input_ids"], ["unused"], domain=domain))
        if imported:
            graph.opset_import.append(helper.make_opsetid(domain, 1))

    change_graph(own_bundle, edit)
    assert said in refusal(own_bundle)


def test_versions_that_onnxruntime_does_not_have(own_bundle):
    def newer_format(graph):
        graph.ir_version = 99

    def newer_operators(graph):
        graph.ir_version = 10
        next(item for item in graph.opset_import if not item.domain).version = 98

    change_graph(own_bundle, newer_format)
    assert "needs version 99 of ONNX's file format" in refusal(own_bundle)
    change_graph(own_bundle, newer_operators)
    assert "needs version 98 of ONNX's operators" in refusal(own_bundle)


@pytest.mark.parametrize(
    "place", ["/etc/passwd", "/dev/zero", "../data", "a/../../data", "*/_ORT_MEM_ADDR_/*", "-1", "README.md"]
)
def test_weights_that_lie_elsewhere(own_bundle, place):
    """A README beside the model is allowed; a graph that reads it is not."""
    (own_bundle / "README.md").write_bytes(bytes(2**16))
    (own_bundle.parent / "data").write_bytes((own_bundle / "decoder.onnx.data").read_bytes())

    def edit(graph):
        stored = next(item for item in graph.graph.initializer if item.external_data)
        key = "offset" if place == "-1" else "location"
        next(entry for entry in stored.external_data if entry.key == key).value = place

    change_graph(own_bundle, edit)
    assert "decoder.onnx" in refusal(own_bundle)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes")
def test_pipes_in_the_folder_do_not_make_it_wait(own_bundle):
    """Whoever opens one waits for somebody to write into it."""
    os.mkfifo(own_bundle / "more.data")
    assert "more.data" in refusal(own_bundle)
    (own_bundle / "more.data").rename(own_bundle / "README.md")
    assert triform.load(own_bundle).manifest.form == "decoder"
    for name in ("decoder.onnx.data", "tokenizer.json", "manifest.json"):
        (own_bundle / name).rename(own_bundle.parent / name)
        os.mkfifo(own_bundle / name)
        assert name in refusal(own_bundle)
        (own_bundle.parent / name).rename(own_bundle / name)
