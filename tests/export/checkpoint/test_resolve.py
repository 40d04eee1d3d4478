"""A source is resolved once: folders, files, hub ids of a cache, adapters alone; and what is none of them."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from tests.checkpoints.hub_cache import add_to_cache
from triform.export.checkpoint.resolve import find_checkpoint
from triform.runtime.errors import ExportError, InputError


@pytest.fixture
def folder(tmp_path):
    """What a checkpoint's folder looks like, without numbers."""
    made = tmp_path / "models" / "little"
    (made / "1_Pooling").mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "preprocessor_config.json", "1_Pooling/config.json"):
        (made / name).write_text("{}")
    (made / "modules.json").write_text('[{"type": "sentence_transformers.models.Transformer", "path": ""}]')
    (made / "model.safetensors").write_bytes(b"12345678")
    return made


def test_a_hub_id_is_the_snapshot_with_all_its_files(cache, folder):
    snapshot = add_to_cache(cache, "org/little-one", folder)
    source = find_checkpoint("org/little-one")
    assert (source.name, source.path, source.model_folder) == ("little-one", snapshot, snapshot)
    assert source.size == 8
    assert (source.path / "1_Pooling" / "config.json").is_file()


def test_a_folder_around_a_model_names_it(cache, folder):
    snapshot = add_to_cache(cache, "org/little", folder)
    for around, inner in ((folder.parent, folder), (snapshot.parent.parent, snapshot)):
        with pytest.raises(
            ExportError, match=f"is not a model: it has no config.json; {re.escape(str(inner))} has one"
        ):
            find_checkpoint(str(around))


def test_a_name_without_an_organization(cache, folder):
    snapshot = add_to_cache(cache, "gpt2", folder)
    assert find_checkpoint("gpt2").path == snapshot


def test_revisions(cache, folder):
    main = add_to_cache(cache, "org/little", folder)
    (folder / "tokenizer.json").write_text('{"newer": true}')
    tagged = add_to_cache(cache, "org/little", folder, commit="b" * 40, ref="v2")
    assert find_checkpoint("org/little").path == main
    assert find_checkpoint("org/little", revision="v2").path == tagged
    assert find_checkpoint("org/little", revision="b" * 40).path == tagged
    with pytest.raises(ExportError, match="nor in the hub's cache at revision v3, and the hub cannot be reached"):
        find_checkpoint("org/little", revision="v3")


def test_a_revision_is_of_a_hub_id(folder):
    with pytest.raises(InputError, match=r"--revision is for hub ids; .* is a folder"):
        find_checkpoint(str(folder), revision="main")


def test_a_folder_comes_before_a_hub_id(cache, folder, tmp_path, monkeypatch):
    add_to_cache(cache, "models/little", folder)
    monkeypatch.chdir(tmp_path)
    assert find_checkpoint("models/little").path.resolve() == folder


def test_offline_and_not_cached_is_one_line(cache):
    with pytest.raises(ExportError) as error:
        find_checkpoint("org/little")
    assert str(error.value) == (
        "org/little is neither a folder here nor in the hub's cache, and the hub cannot be reached "
        "(HF_HUB_OFFLINE is set); fetch it online, or give a folder"
    )


def test_a_snapshot_that_is_known_to_be_cut_short_is_refused(cache, folder):
    snapshot = add_to_cache(cache, "org/little", folder)
    files = {name: {"size": 2, "blob_id": "0"} for name in ("config.json", "modules.json", "model.onnx")}
    listing = snapshot.parent.parent / "trees" / f"{'a' * 40}.json"
    listing.parent.mkdir()
    listing.write_text(json.dumps({"format_version": 1, "files": files}))
    find_checkpoint("org/little")
    (snapshot / "modules.json").unlink()
    with pytest.raises(ExportError, match="is only partly in the hub's cache"):
        find_checkpoint("org/little")


@pytest.mark.parametrize("name", ["folder", "links", "snapshot"])
def test_what_a_model_is_called(folder, cache, tmp_path, name):
    if name == "links":
        given = tmp_path / "linked"
        given.symlink_to(folder)
    else:
        given = folder if name == "folder" else add_to_cache(cache, "org/little", folder)
    assert find_checkpoint(str(given)).name == "little"


@pytest.mark.parametrize("source", ["/nowhere/model", "./model", "~/model", "a/b/c", "org/na me", "x" * 200])
def test_what_is_nothing(cache, source):
    with pytest.raises(
        ExportError, match=r"does not exist; give a model folder, a \.gguf file or a hub id like org/name"
    ):
        find_checkpoint(source)


def test_the_transformer_in_a_folder_of_its_own(folder):
    inner = folder / "0_Transformer"
    inner.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        shutil.move(folder / name, inner / name)
    modules = [{"type": "sentence_transformers.models.Transformer", "path": "0_Transformer"}]
    (folder / "modules.json").write_text(json.dumps(modules))
    source = find_checkpoint(str(folder))
    assert (source.path, source.model_folder, source.tokenizer_folder) == (folder, inner, inner)
    assert (source.name, source.size) == ("little", 8)
    for path in ("../elsewhere", "/etc"):
        (folder / "modules.json").write_text(json.dumps([{"type": "Transformer", "path": path}]))
        with pytest.raises(ExportError, match="which is not inside the folder"):
            find_checkpoint(str(folder))


class TestGguf:
    def write(self, path):
        path.write_bytes(b"GGUF")
        return path

    def test_the_only_one_of_a_folder(self, tmp_path):
        path = self.write(tmp_path / "m.Q4_K_M.gguf")
        source = find_checkpoint(str(tmp_path))
        assert (source.path, source.gguf, source.name) == (path, path, "m.Q4_K_M")

    def test_of_several_one_is_to_be_named(self, tmp_path):
        for kind in ("Q4_K_M", "Q8_0"):
            self.write(tmp_path / f"m.{kind}.gguf")
        with pytest.raises(ExportError, match=r"several GGUF files; give one: m\.Q4_K_M\.gguf, m\.Q8_0\.gguf"):
            find_checkpoint(str(tmp_path))

    def test_beside_a_config(self, tmp_path):
        (tmp_path / "config.json").write_text("{}")
        path = self.write(tmp_path / "m.gguf")
        assert find_checkpoint(str(tmp_path)).path == path

    def test_a_file_on_the_hub(self, cache, tmp_path):
        (tmp_path / "up").mkdir()
        for name in ("a.gguf", "b.gguf"):
            self.write(tmp_path / "up" / name)
        snapshot = add_to_cache(cache, "org/little-GGUF", tmp_path / "up")
        assert find_checkpoint("org/little-GGUF/b.gguf").path == snapshot / "b.gguf"
        with pytest.raises(ExportError, match=r"org/little-GGUF has no file c\.gguf"):
            find_checkpoint("org/little-GGUF/c.gguf")


class TestAdapters:
    def adapter(self, place, base, *, tokenizer=False):
        place.mkdir(parents=True)
        settings = {"peft_type": "LORA", "base_model_name_or_path": base}
        (place / "adapter_config.json").write_text(json.dumps(settings))
        if tokenizer:
            (place / "tokenizer_config.json").write_text("{}")
        return place

    def test_alone_with_its_base_in_a_folder(self, folder, tmp_path):
        place = self.adapter(tmp_path / "tuned", str(folder))
        source = find_checkpoint(str(place))
        assert (source.name, source.path, source.adapter) == ("tuned", folder, place)
        assert source.tokenizer_folder == folder

    def test_a_revision_of_a_base_in_a_folder(self, folder, tmp_path):
        place = self.adapter(tmp_path / "tuned", str(folder))
        settings = json.loads((place / "adapter_config.json").read_text())
        (place / "adapter_config.json").write_text(json.dumps(settings | {"revision": "main"}))
        assert find_checkpoint(str(place)).path == folder

    def test_its_own_tokenizer(self, folder, tmp_path):
        place = self.adapter(tmp_path / "tuned", str(folder), tokenizer=True)
        assert find_checkpoint(str(place)).tokenizer_folder == place

    def test_alone_with_its_base_on_the_hub(self, cache, folder, tmp_path):
        snapshot = add_to_cache(cache, "org/base", folder)
        place = self.adapter(tmp_path / "tuned", "org/base")
        assert find_checkpoint(str(place)).path == snapshot
        add_to_cache(cache, "org/tuned", place)
        source = find_checkpoint("org/tuned")
        assert (source.name, source.path) == ("tuned", snapshot)

    def test_a_base_that_is_not_there(self, cache, tmp_path):
        place = self.adapter(tmp_path / "tuned", "org/base")
        with pytest.raises(ExportError, match="its base model cannot be used: org/base is neither a folder here nor"):
            find_checkpoint(str(place))
        (place / "adapter_config.json").write_text("{}")
        with pytest.raises(ExportError, match="names no base model"):
            find_checkpoint(str(place))

    def test_an_adapter_of_itself(self, tmp_path):
        place = tmp_path / "tuned"
        self.adapter(place, str(place))
        with pytest.raises(ExportError, match="holds an adapter, which names itself"):
            find_checkpoint(str(place))

    def test_beside_its_model(self, folder):
        (folder / "adapter_config.json").write_text("{}")
        source = find_checkpoint(str(folder))
        assert (source.adapter, source.path) == (folder, folder)
