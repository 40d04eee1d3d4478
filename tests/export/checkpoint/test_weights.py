"""Files of weights: formats, shards, indexes, and pickles that are not unpickled."""

from __future__ import annotations

import json
import os

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, MixtralConfig, MixtralForCausalLM

from triform.export.checkpoint.files.weights import find_weights, load_tensors, tensor_names
from triform.export.checkpoint.loading import load_model, read_config
from triform.export.checkpoint.resolve import find_checkpoint
from triform.runtime.errors import ExportError

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b.bias": torch.ones(4, dtype=torch.bfloat16)}


class Touches:
    """What a pickle can do: make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def loaded(folder):
    source = find_checkpoint(str(folder))
    return load_model(source, read_config(source), AutoModelForCausalLM).model.state_dict()


def as_pickle(folder, **options):
    """Turn a folder's safetensors into pytorch_model.bin, as older releases of transformers saved it."""
    tensors = load_tensors(find_weights(folder))
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin", **options)


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}], ids=["zip", "before torch 1.6"])
def test_a_pickle_of_tensors_gives_the_numbers_of_safetensors(llama, options):
    expected = AutoModelForCausalLM.from_pretrained(llama).state_dict()
    as_pickle(llama, **options)
    found = loaded(llama)
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
@pytest.mark.parametrize("indexed", [True, False], ids=["with an index", "without"])
def test_shards(llama, suffix, indexed):
    expected = AutoModelForCausalLM.from_pretrained(llama).state_dict()
    tensors = load_tensors(find_weights(llama))
    (llama / "model.safetensors").unlink()
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    names, weight_map = sorted(tensors), {}
    for part in (0, 1):
        file = f"{stem}-{part + 1:05}-of-00002.{suffix}"
        held = {name: tensors[name] for name in names[part::2]}
        if suffix == "bin":
            torch.save(held, llama / file)
        else:
            save_file(held, llama / file)
        weight_map |= dict.fromkeys(held, file)
    if indexed:
        (llama / f"{stem}.{suffix}.index.json").write_text(json.dumps({"weight_map": weight_map}))
    found = loaded(llama)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_names_are_read_without_numbers(tmp_path):
    save_file(TENSORS, tmp_path / "model.safetensors")
    assert sorted(tensor_names(find_weights(tmp_path))) == ["a.weight", "b.bias"]
    (tmp_path / "model.safetensors").unlink()
    torch.save(TENSORS, tmp_path / "pytorch_model.bin")
    assert sorted(tensor_names(find_weights(tmp_path))) == ["a.weight", "b.bias"]


def test_safetensors_come_before_a_pickle(tmp_path):
    save_file(TENSORS, tmp_path / "model.safetensors")
    torch.save({"other": torch.ones(1)}, tmp_path / "pytorch_model.bin")
    assert "a.weight" in load_tensors(find_weights(tmp_path))


@pytest.mark.parametrize("old", [False, True], ids=["zip", "before torch 1.6"])
def test_a_pickle_that_runs_code_is_refused_by_name_and_does_not_run(tmp_path, old):
    mark = tmp_path / "was-here"
    content = {"a": torch.ones(2), "b": Touches(mark)}
    torch.save(content, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=not old)
    for read in (load_tensors, tensor_names):
        with pytest.raises(ExportError, match=r"pytorch_model\.bin needs posix\.system, which is no tensor"):
            read(find_weights(tmp_path))
    assert not mark.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.nn.Linear(2, 2), r"needs torch\.nn\.modules\.linear\.Linear"),
        ({"state_dict": {"a": torch.ones(1)}}, "holds 'state_dict', a dict, beside its tensors"),
        ({"a": torch.ones(1), "epoch": 3}, "holds 'epoch', a int, beside its tensors"),
        ([torch.ones(1)], "holds a list, not tensors by name"),
    ],
)
def test_what_is_more_than_tensors_by_name_is_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "pytorch_model.bin")
    with pytest.raises(ExportError, match=message):
        load_tensors(find_weights(tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello", "is damaged, or not a file of weights"),
        (b"", "is damaged, or not a file of weights"),
        (b"version: git-lfs pointer", "is a pointer of Git LFS"),
    ],
)
def test_what_is_no_pickle(tmp_path, content, message):
    (tmp_path / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(ExportError, match=message):
        load_tensors(find_weights(tmp_path))


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_torch_script_is_refused(tmp_path):
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), tmp_path / "pytorch_model.bin")
    with pytest.raises(ExportError, match="is a TorchScript archive"):
        load_tensors(find_weights(tmp_path))


def test_an_index_and_its_files_agree(tmp_path):
    index = tmp_path / "model.safetensors.index.json"
    save_file(TENSORS, tmp_path / "model-00001-of-00001.safetensors")
    for weight_map, message in (
        ({"a.weight": "model-00001-of-00001.safetensors"}, "holds b.bias, which its index does not name"),
        (dict.fromkeys([*TENSORS, "c"], "model-00001-of-00001.safetensors"), "lacks c, which its index says"),
        ({"a.weight": "model-00002-of-00002.safetensors"}, "lacks model-00002-of-00002.safetensors"),
        ({"a.weight": "../secret.safetensors"}, "which is not a file beside it"),
        ({}, "has no weight_map"),
    ):
        index.write_text(json.dumps({"weight_map": weight_map}))
        with pytest.raises(ExportError, match=message):
            load_tensors(find_weights(tmp_path))


def test_a_shard_that_is_missing(tmp_path):
    save_file(TENSORS, tmp_path / "model-00002-of-00002.safetensors")
    with pytest.raises(ExportError, match="not all of its parts"):
        find_weights(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tf_model.h5", "tf_model.h5 holds TensorFlow weights"),
        ("flax_model.msgpack", "holds Flax weights"),
        ("model.fp16.safetensors", "model.fp16.safetensors is not a name that transformers reads"),
        ("weights.pth", "weights.pth is not a name that transformers reads"),
        ("notes.txt", "neither model.safetensors nor pytorch_model.bin; save the model"),
    ],
)
def test_what_a_folder_holds_instead_is_named(tmp_path, name, message):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(ExportError, match=message):
        find_weights(tmp_path)


def test_a_shape_that_the_config_contradicts_is_named(llama):
    config = json.loads((llama / "config.json").read_text())
    vocabulary, width = config["vocab_size"], config["hidden_size"]
    (llama / "config.json").write_text(json.dumps({**config, "vocab_size": vocabulary - 10}))
    message = (
        f"lm_head.weight is {vocabulary} x {width}, and its config asks for {vocabulary - 10} x {width}, and 1 more"
    )
    with pytest.raises(ExportError, match=message) as caught:
        loaded(llama)
    assert "\n" not in str(caught.value)


def test_parts_of_experts_that_do_not_go_together_are_named(tmp_path):
    config = MixtralConfig(
        vocab_size=60, hidden_size=24, intermediate_size=40, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, num_local_experts=3,
    )  # fmt: skip
    MixtralForCausalLM(config).save_pretrained(tmp_path)
    tensors = load_tensors(find_weights(tmp_path))
    lost = next(name for name in tensors if "experts.1.w1" in name)
    save_file({name: tensor for name, tensor in tensors.items() if name != lost}, tmp_path / "model.safetensors")
    message = r"what model\.layers\.0\.mlp\.experts\.gate_up_proj is made of does not go together .*a part is missing"
    with pytest.raises(ExportError, match=message) as caught:
        loaded(tmp_path)
    assert "\n" not in str(caught.value)


def test_code_of_a_checkpoint_that_is_not_run_is_named(llama):
    """As gte-Qwen2's, whose own class attends in both directions and transformers' does not."""
    config = json.loads((llama / "config.json").read_text())
    own = {"AutoConfig": "configuration_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnModel"}
    (llama / "config.json").write_text(json.dumps({**config, "auto_map": own}))
    source = find_checkpoint(str(llama))
    (note,) = load_model(source, read_config(source), AutoModelForCausalLM).notes
    assert note.startswith("modeling_own.py, which came with the checkpoint, was not run: LlamaForCausalLM of transf")
    (llama / "config.json").write_text(
        json.dumps({**config, "auto_map": {"AutoConfig": "configuration_own.OwnConfig"}})
    )
    assert load_model(source, read_config(source), AutoModelForCausalLM).notes == ()


@pytest.mark.parametrize("indexed", [True, False], ids=["with an index", "without"])
def test_a_tensor_in_two_shards(tmp_path, indexed):
    """transformers takes the one of the last file, whatever the index says."""
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    save_file(TENSORS, tmp_path / names[0])
    if indexed:
        weight_map = {"a.weight": names[0], "b.bias": names[0], "c.bias": names[1]}
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    second = {"a.weight": TENSORS["a.weight"].clone(), "c.bias": torch.zeros(2)}
    save_file(second, tmp_path / names[1])
    assert torch.equal(load_tensors(find_weights(tmp_path))["a.weight"], TENSORS["a.weight"])
    for other in (TENSORS["a.weight"] + 1, TENSORS["a.weight"].half(), TENSORS["a.weight"][:1].clone()):
        save_file({**second, "a.weight": other}, tmp_path / names[1])
        with pytest.raises(ExportError, match=r"00002-of-00002\.safetensors holds a\.weight with other numbers"):
            load_tensors(find_weights(tmp_path))


@pytest.mark.parametrize(
    "written",
    [
        "module.{}", "_orig_mod.{}", "module._orig_mod.{}", "_forward_module.{}", "_fsdp_wrapped_module.{}",
        "_forward_module._orig_mod.{}",
    ],
)  # fmt: skip
def test_names_of_wrappers_around_a_model(tmp_path, written):
    names = ("model.embed.weight", "head.weight")
    tensors = {written.format(name): torch.full((2,), float(place)) for place, name in enumerate(names)}
    save_file(tensors, tmp_path / "model.safetensors")
    assert sorted(tensor_names(find_weights(tmp_path))) == sorted(names)
    read = load_tensors(find_weights(tmp_path))
    assert [read[name][0].item() for name in names] == [0, 1]


def test_names_of_wrappers_inside(tmp_path):
    """Recomputed layers; a module that is called so beside others is none."""
    names = ("layers.0._checkpoint_wrapped_module.up.weight", "module.weight")
    save_file({name: torch.ones(1) for name in names}, tmp_path / "model.safetensors")
    assert sorted(load_tensors(find_weights(tmp_path))) == ["layers.0.up.weight", "module.weight"]


def test_wrapped_names_beside_the_same_plain_ones_are_left(tmp_path):
    save_file({"up.weight": torch.ones(1), "_orig_mod.up.weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    assert sorted(load_tensors(find_weights(tmp_path))) == ["_orig_mod.up.weight", "up.weight"]


def test_a_link_to_nothing_is_named(tmp_path):
    (tmp_path / "model.safetensors").symlink_to(tmp_path / "blobs" / "gone")
    with pytest.raises(ExportError, match=r"model\.safetensors is a link to a file that is not there: fetch the model"):
        find_weights(tmp_path)
