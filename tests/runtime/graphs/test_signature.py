"""What the manifest says against what the graph has: each kind of difference is refused in one line."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest

from triform.runtime.bundle.folder import open_bundle
from triform.runtime.bundle.manifest import TensorInfo
from triform.runtime.errors import BundleError
from triform.runtime.graphs.session import open_session
from triform.runtime.graphs.signature import check_decoder, check_decoder_of, hidden_size_of


class Session:
    """The inputs and outputs of a session, some of which are changed, added, or, where None, left out."""

    def __init__(self, session, **changes):
        self._changes = changes
        self._inputs, self._outputs = session.get_inputs(), session.get_outputs()

    def _changed(self, nodes, kind):
        kept = {node.name: SimpleNamespace(name=node.name, type=node.type, shape=node.shape) for node in nodes}
        for name, change in self._changes.get(kind, {}).items():
            if change is None:
                del kept[name]
            else:
                kept.setdefault(name, SimpleNamespace(name=name)).__dict__.update(change)
        return list(kept.values())

    def get_inputs(self):
        return self._changed(self._inputs, "inputs")

    def get_outputs(self):
        return self._changed(self._outputs, "outputs")


@pytest.fixture(scope="module")
def decoder(float_bundle):
    bundle = open_bundle(float_bundle)
    path, graph = bundle.graph("decoder")
    return SimpleNamespace(session=open_session(path), manifest=bundle.manifest, path=path, graph=graph)


TENSOR = {"type": "tensor(float)", "shape": [1]}
KEY, VALUE = "past_key_values.0.key", "present.1.value"
DIFFERENCES = {
    "missing input": ({"inputs": {"past_lengths": None}}, "past_lengths is missing"),
    "unknown input": ({"inputs": {"position_ids": TENSOR}}, "position_ids is unknown"),
    "missing output": ({"outputs": {VALUE: None}}, rf"{VALUE} is missing"),
    "unknown output": ({"outputs": {"router": TENSOR}}, "router is unknown"),
    "dtype of an input": (
        {"inputs": {"input_ids": {"type": "tensor(int32)"}}},
        r"input_ids is a tensor\(int32\), not a tensor\(int64\)",
    ),
    "dtype of the cache": (
        {"inputs": {KEY: {"type": "tensor(float16)"}}},
        rf"{KEY} is a tensor\(float16\), not a tensor\(float\)",
    ),
    "rank": (
        {"inputs": {"past_lengths": {"shape": ["batch", 1]}}},
        r"past_lengths has the shape \(batch, 1\), not \(batch\)",
    ),
    "size": (
        {"outputs": {"logits": {"shape": ["batch", "num_logits", 7]}}},
        r"logits has the shape \(batch, num_logits, 7\)",
    ),
}


@pytest.mark.parametrize(("changes", "said"), DIFFERENCES.values(), ids=DIFFERENCES)
def test_a_decoder_that_differs_is_refused(decoder, changes, said):
    with pytest.raises(
        BundleError, match=rf"decoder\.onnx does not match its manifest: {said}.*; export the model again$"
    ):
        check_decoder(Session(decoder.session, **changes), decoder.manifest, decoder.path)


def test_a_decoder_that_fits(decoder):
    assert check_decoder(decoder.session, decoder.manifest, decoder.path) == decoder.manifest.cache


def test_a_size_that_one_side_leaves_open_fits(decoder):
    open_sizes = Session(decoder.session, outputs={"logits": {"shape": ["batch", None, "words"]}})
    check_decoder(open_sizes, decoder.manifest, decoder.path)


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        ({"num_key_value_heads": 99}, r"not \(batch, 99, capacity, "),
        ({"head_dim": 98}, r"not \(batch, \d, capacity, 98\)"),
    ],
)
def test_a_cache_of_another_shape_is_refused(decoder, layer, said):
    cache = decoder.manifest.cache
    first, second, *rest = cache.layers
    layers = [first, dataclasses.replace(second, **layer), *rest]
    manifest = dataclasses.replace(decoder.manifest, cache=dataclasses.replace(cache, layers=layers))
    with pytest.raises(BundleError, match=rf"past_key_values\.1\.key has the shape .*{said}"):
        check_decoder(decoder.session, manifest, decoder.path)


def test_a_cache_of_fewer_layers_or_none_is_refused(decoder):
    cache = decoder.manifest.cache
    fewer = dataclasses.replace(decoder.manifest, cache=dataclasses.replace(cache, layers=cache.layers[:-1]))
    last = len(cache.layers) - 1
    with pytest.raises(BundleError, match=rf"past_key_values\.{last}\.key is unknown"):
        check_decoder(decoder.session, fewer, decoder.path)
    with pytest.raises(BundleError, match="is a decoder without a cache; export the model again"):
        check_decoder(decoder.session, dataclasses.replace(decoder.manifest, cache=None), decoder.path)


def with_hidden_states(decoder, shape):
    outputs = [*decoder.graph.outputs, TensorInfo("last_hidden_state", "float32", shape)]
    graphs = {"decoder": dataclasses.replace(decoder.graph, outputs=outputs)}
    return dataclasses.replace(decoder.manifest, graphs=graphs)


def test_hidden_states_that_the_graph_lacks_are_refused(decoder):
    assert hidden_size_of(decoder.manifest) is None
    manifest = with_hidden_states(decoder, ["batch", "sequence", 12])
    assert hidden_size_of(manifest) == 12
    with pytest.raises(BundleError, match="last_hidden_state is missing"):
        check_decoder(decoder.session, manifest, decoder.path)


@pytest.mark.parametrize("shape", [[], ["batch", "sequence", "hidden_size"]])
def test_hidden_states_of_unknown_length_are_refused(decoder, shape):
    with pytest.raises(BundleError, match=r"^the manifest does not say how long last_hidden_state is; export"):
        hidden_size_of(with_hidden_states(decoder, shape))


ENCODED = {"type": "tensor(float)", "shape": ["batch", 2, "source", 24]}


@pytest.mark.parametrize(
    ("taken", "said"),
    [
        ({}, "cross.0.key is missing"),
        ({"cross.0.key": {**ENCODED, "type": "tensor(float16)"}}, r"cross.0.key is a tensor\(float16\)"),
        ({"cross.0.key": {**ENCODED, "shape": ["batch", 3, "source", 24]}}, r"not \(batch, 2, source, 24\)"),
        ({"cross.0.key": ENCODED, "cross.1.key": ENCODED}, "cross.1.key is unknown"),
    ],
)
def test_a_decoder_that_takes_something_else_than_its_encoder_gives_is_refused(decoder, taken, said):
    encoder = SimpleNamespace(get_outputs=lambda: [SimpleNamespace(name="cross.0.key", **ENCODED)])
    with pytest.raises(BundleError, match=rf"decoder\.onnx does not match its manifest: .*{said}"):
        check_decoder_of(encoder, Session(decoder.session, inputs=taken), decoder.manifest, decoder.path.parent)


def test_a_decoder_that_takes_what_its_encoder_gives(decoder):
    encoder = SimpleNamespace(get_outputs=lambda: [SimpleNamespace(name="cross.0.key", **ENCODED)])
    fitting = Session(decoder.session, inputs={"cross.0.key": {**ENCODED, "shape": ["batch", 2, None, 24]}})
    cache = check_decoder_of(encoder, fitting, decoder.manifest, decoder.path.parent)
    assert cache == decoder.manifest.cache


def gpu_graph(decoder, counts_positions):
    """A graph for GPUs as docs/gpu.md describes it, of the same cache in 16 bits, and its manifest."""

    def nodes(**tensors):
        return [
            SimpleNamespace(name=name, type=f"tensor({kind})", shape=list(shape))
            for name, (kind, *shape) in tensors.items()
        ]

    cache = dataclasses.replace(decoder.manifest.cache, dtype="float16")
    kept = [(index, ("float16", "batch", layer.num_key_value_heads, "capacity", layer.head_dim))
            for index, layer in enumerate(cache.layers)]  # fmt: skip
    inputs = {
        "input_ids": ("int64", "batch", "sequence"), "seqlens_k": ("int32", "batch"),
        "total_sequence_length": ("int32", 1), "logits_rows": ("int64", "num_logits"),
        **({"past_lengths": ("int32", "batch")} if counts_positions else {}),
        **{f"past_key_values.{index}.{part}": tensor for index, tensor in kept for part in ("key", "value")},
    }  # fmt: skip
    outputs = {
        "logits": ("float", "num_logits", 1, decoder.manifest.vocab_size), "next_ids": ("int64", "num_logits", 1),
        **{f"present.{index}.{part}": tensor for index, tensor in kept for part in ("key", "value")},
    }  # fmt: skip
    graph = SimpleNamespace(get_inputs=lambda: nodes(**inputs), get_outputs=lambda: nodes(**outputs))
    return graph, dataclasses.replace(decoder.manifest, target="gpu", cache=cache)


@pytest.mark.parametrize("counts_positions", [False, True])
def test_a_graph_for_gpus(decoder, counts_positions):
    graph, manifest = gpu_graph(decoder, counts_positions)
    assert check_decoder(graph, manifest, decoder.path) == manifest.cache
    with pytest.raises(BundleError):
        check_decoder(graph, decoder.manifest, decoder.path)
    for kind, name, sizes in (
        ("inputs", "total_sequence_length", [2]), ("outputs", "logits", ["num_logits", 2, manifest.vocab_size]),
        ("outputs", "next_ids", ["num_logits", 2]),
    ):  # fmt: skip
        changed = Session(graph, **{kind: {name: {"shape": sizes}}})
        with pytest.raises(BundleError, match=rf"{name} has the shape"):
            check_decoder(changed, manifest, decoder.path)
