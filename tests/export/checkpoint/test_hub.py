"""Which of a repository's files are fetched; and a hub of this machine's own, over HTTP."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from huggingface_hub import constants

from triform.export.checkpoint.files.hub import settings_of, weights_of
from triform.export.checkpoint.resolve import find_checkpoint
from triform.runtime.errors import ExportError

# As repositories of sentence-transformers have them.
NAMES = [
    ".gitattributes", "README.md", "1_Pooling/config.json", "2_Dense/config.json", "2_Dense/model.safetensors",
    "2_Dense/pytorch_model.bin", "config.json", "model.safetensors", "pytorch_model.bin", "tf_model.h5",
    "rust_model.ot", "onnx/model.onnx", "onnx/config.json",
    "openvino/openvino_model.xml", "openvino/openvino_model.bin",
    "modules.json", "tokenizer.json", "vocab.txt", "sentencepiece.bpe.model", "modeling_own.py", "image.png",
    "checkpoint-500/config.json", "checkpoint-500/model.safetensors", "training_args.bin", "optimizer.pt",
]  # fmt: skip


def test_settings_are_all_but_weights_and_other_frameworks():
    expected = {
        ".gitattributes", "README.md", "1_Pooling/config.json", "2_Dense/config.json", "config.json", "modules.json",
        "tokenizer.json", "vocab.txt", "sentencepiece.bpe.model",
    }  # fmt: skip
    assert set(settings_of(NAMES)) == expected
    assert set(settings_of(NAMES, code=True)) == expected | {"modeling_own.py"}


def test_each_weight_is_fetched_once():
    assert weights_of(NAMES, ["", "1_Pooling", "2_Dense"]) == ["model.safetensors", "2_Dense/model.safetensors"]
    pickles = [name for name in NAMES if not name.endswith(".safetensors")]
    assert weights_of(pickles, ["", "2_Dense"]) == ["pytorch_model.bin", "2_Dense/pytorch_model.bin"]
    shards = [f"model-0000{part}-of-00002.safetensors" for part in (1, 2)]
    others = ["model.safetensors.index.json", "consolidated.safetensors", "model.fp16.safetensors", "pytorch_model.bin"]
    assert weights_of([*shards, *others], [""]) == shards
    assert weights_of(["adapter_model.bin", "adapter_model.safetensors"], [""]) == ["adapter_model.safetensors"]


FILES = {
    "config.json": b'{"model_type": "bert"}',
    "modules.json": b'[{"type": "sentence_transformers.models.Transformer", "path": ""}, {"path": "2_Dense"}]',
    "2_Dense/config.json": b"{}",
    "2_Dense/pytorch_model.bin": b"dense",
    "model.safetensors": b"weights",
    "pytorch_model.bin": b"the same once more",
    "onnx/model.onnx": b"graph",
}
COMMIT = "c" * 40


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as its client asks of it to fetch a model."""

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        path = self.path.split("?")[0]
        if not path.startswith(("/api/models/org/little", "/org/little")):
            return self.send(404, b"", {"X-Error-Code": "RepoNotFound"})
        if "/revision/" in path and not path.endswith(("/main", COMMIT)):
            return self.send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        if "/resolve/" in path:
            name = path.split("/resolve/")[1].split("/", 1)[1]
            self.server.fetched.append((self.command, name))
            content = FILES[name]
            return self.send(200, content, {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT})
        if "/tree/" in path:
            entries = [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in FILES.items()
            ]
            return self.send(200, json.dumps(entries).encode())
        siblings = [{"rfilename": name} for name in FILES]
        return self.send(200, json.dumps({"id": "org/little", "sha": COMMIT, "siblings": siblings}).encode())

    def send(self, status, content, headers=None):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(cache, monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.fetched = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", constants.ENDPOINT + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def fetched(hub):
    return sorted(name for command, name in hub.fetched if command == "GET")


def test_a_model_is_fetched_with_the_weights_of_its_modules(hub, monkeypatch):
    source = find_checkpoint("org/little")
    assert source.size == len(b"weights")
    assert (source.path / "2_Dense" / "pytorch_model.bin").read_bytes() == b"dense"
    assert fetched(hub) == sorted(set(FILES) - {"pytorch_model.bin", "onnx/model.onnx"})
    # What was fetched is complete, so that it serves without a network.
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert find_checkpoint("org/little").path == source.path


def test_a_plan_fetches_no_weights(hub):
    source = find_checkpoint("org/little", weights=False)
    assert source.weights is None
    assert fetched(hub) == ["2_Dense/config.json", "config.json", "modules.json"]


def test_what_the_hub_does_not_have(hub):
    with pytest.raises(ExportError, match="org/none is neither a folder here nor a model on the hub"):
        find_checkpoint("org/none")
    with pytest.raises(ExportError, match="org/little has no revision v9"):
        find_checkpoint("org/little", revision="v9")
