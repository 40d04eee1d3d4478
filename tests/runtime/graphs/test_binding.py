"""Steps on a session whose inputs are copied to a device when they are bound: what they give is what the CPU gives."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from tests.checkpoints.wandering import wandering_folder
from tests.helpers.device_session import DeviceSession
from triform.export.options import ExportOptions
from triform.export.pipeline import export
from triform.runtime.bundle.folder import open_bundle
from triform.runtime.graphs.binding import StepBinding
from triform.runtime.graphs.decoding.batch import DecoderBatchStep
from triform.runtime.graphs.decoding.branches import HiddenStep
from triform.runtime.graphs.decoding.step import DecoderStep
from triform.runtime.graphs.encoder_decoder import SourceReader
from triform.runtime.graphs.session import open_session
from triform.runtime.graphs.signature import check_decoder, check_decoder_of

PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [200, 13, 14], [301, 302, 303, 304, 305]]
# Enough to outgrow the first buffers, which hold 64 tokens.
STEPS = 70
# Where the cache is: beside the other inputs, or on the host, as with CUDA, which has no attention of float32.
DEVICES = {
    "everything on the device": lambda name: False,
    "the cache on the host": lambda name: name.startswith("past_key_values."),
}


@pytest.fixture(scope="module", params=DEVICES)
def on_host(request):
    return DEVICES[request.param]


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    """A decoder that gives hidden states and does not repeat itself."""
    folder = tmp_path_factory.mktemp("binding")
    checkpoint = wandering_folder(folder / "checkpoint", "llama")
    export(str(checkpoint), folder / "bundle", ExportOptions(quantize="none", hidden_states=True))
    bundle = open_bundle(folder / "bundle")
    path, _ = bundle.graph("decoder")
    session = open_session(path)
    return SimpleNamespace(
        session=session, manifest=bundle.manifest, cache=check_decoder(session, bundle.manifest, path)
    )


@pytest.fixture(scope="module")
def pair(exported_family):
    """The two sessions of an encoder-decoder."""
    folder = exported_family("t5")[1]
    bundle = open_bundle(folder)
    encoder, decoder = (open_session(bundle.graph(name)[0]) for name in ("encoder", "decoder"))
    cache = check_decoder_of(encoder, decoder, bundle.manifest, folder)
    return SimpleNamespace(encoder=encoder, session=decoder, manifest=bundle.manifest, cache=cache)


def check(run, model, on_host):
    """Run with both sessions: the same tokens, from all but the same logits, and as different as tokens can be."""
    device = DeviceSession(model.session, on_host)
    tokens, logits = run(model, model.session)
    copied_tokens, copied_logits = run(model, device)
    assert copied_tokens == tokens
    np.testing.assert_allclose(copied_logits, logits, rtol=0, atol=1e-5 * np.abs(logits).max())
    assert device.runs > 3
    assert len({token for row in np.reshape(tokens, (-1, np.shape(tokens)[-1])).tolist() for token in row}) > 5


def one_row(model, session):
    """One token a run, then three, then one again."""
    step = DecoderStep(session, model.manifest, model.cache)
    logits = [step.prefill(PROMPTS[0])]
    tokens = [int(logits[-1].argmax())]
    for count in (*[1] * STEPS, *[3] * 4, 1, 3, 1):
        for row in step.extend(tokens[-count:]).copy():
            logits.append(row)
            tokens.append(int(row.argmax()))
    return tokens, np.stack(logits)


def batch(model, session):
    """Three rows, of which one leaves and another is doubled."""
    step = DecoderBatchStep(session, model.manifest, model.cache)
    return follow(step, step.prefill(PROMPTS))


def follow(step, first):
    logits, tokens, parents = [first], [first.argmax(-1).tolist()], (0, 1, 2)
    for number in range(STEPS):
        parents = (2, 0, 2) if number == 5 else (0, 1, 2)
        rows = step.next([tokens[-1][parent] for parent in parents], parents).copy()
        logits.append(rows)
        tokens.append(rows.argmax(-1).tolist())
    return tokens, np.stack(logits)


def branches(model, session):
    """Three continuations a step, of which the second stays."""
    step = HiddenStep(session, model.manifest, model.cache, 3)
    logits, states = step.prefill(PROMPTS[0])
    given, tokens, row = [], [], 0
    for _ in range(STEPS):
        tried = np.argsort(-logits)[:3]
        tokens.append(tried.tolist())
        rows, states = (part.copy() for part in step.branch(tried, row))
        given.append(np.concatenate([rows, states], axis=1))
        logits, row = rows[1], 1
    return tokens, np.stack(given)


@pytest.mark.parametrize("run", [one_row, batch, branches])
def test_decoders(run, decoder, on_host):
    check(run, decoder, on_host)


def sources(model, session):
    """Three sources, one row each, then two rows of one of them and none of another; and one source alone."""
    reader = SourceReader(DeviceSession(model.encoder), session, model.manifest, model.cache)
    ids = np.array([[30, 31, 32, 33], [40, 41, 42, 43], [50, 51, 52, 53]])
    encoded = reader.read({"input_ids": ids, "attention_mask": np.ones_like(ids)})
    start = model.manifest.encoder_decoder.decoder_start
    step = reader.batch_step(encoded)
    first = step.prefill([[start]] * 3)
    logits, tokens = [first], [first.argmax(-1).tolist()]
    for number in range(24):
        parents = (1, 1, 2) if number == 5 else (0, 1, 2)
        # Random weights would repeat a token; another is forced after each.
        chosen = [(tokens[-1][parent] + 7 * number) % 250 for parent in parents]
        rows = step.next(chosen, parents).copy()
        logits.append(rows)
        tokens.append(rows.argmax(-1).tolist())
    alone = reader.step(encoded.only([1]))
    rows = np.stack([alone.prefill([start]), *(alone.next(token).copy() for token in range(60, 84))])
    return [*tokens, *rows.argmax(-1).reshape(-1, 1).repeat(3, 1).tolist()], np.concatenate([*logits, rows])


def test_encoder_decoders(pair, on_host):
    check(sources, pair, on_host)


class Bound:
    """A binding that remembers what was bound to it."""

    def __init__(self):
        self.inputs, self.outputs = {}, {}

    def bind_ortvalue_input(self, name, value):
        self.inputs[name] = value.numpy().tolist()

    def bind_ortvalue_output(self, name, value):
        self.outputs[name] = value.shape()


@pytest.mark.parametrize("more", [[], ["new_lengths"]])
def test_a_step_binds_what_its_graph_takes(more):
    """The lengths of what is new are for graphs whose rows may be padded."""
    names, io = ["input_ids", "past_lengths", "logits_positions", *more], Bound()
    session = SimpleNamespace(
        io_binding=lambda: io,
        get_inputs=lambda: [SimpleNamespace(name=name) for name in names],
        get_input_memory_infos=lambda: [SimpleNamespace(name="Cpu") for _ in names],
    )
    step = StepBinding(session, (2, 3), 1, 7)
    step.ready()
    assert io.inputs == {
        "input_ids": [[0] * 3] * 2, "past_lengths": [0, 0], "logits_positions": [[0], [0]],
        **{name: [3, 3] for name in more},
    }  # fmt: skip
    assert io.outputs == {"logits": [2, 1, 7]}
