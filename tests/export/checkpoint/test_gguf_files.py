"""What a GGUF file says besides its weights: positions, biases, parts, ends; and what is refused, in one line."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Format
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from tests.checkpoints.gguf_files import CONTROL, NORMAL, USER_DEFINED, byte_vocabulary, make_model, rotated, write_gguf
from triform.export.checkpoint.gguf import loading
from triform.export.checkpoint.gguf.configs.variants import architecture_of
from triform.export.checkpoint.gguf.container import GgufFile
from triform.runtime.errors import ExportError, TriformError, UnsupportedError

IDS = torch.arange(3, 23)[None]
HEAD = 16


@pytest.fixture(scope="module")
def llama():
    return make_model("llama")


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS).logits


def read(path):
    return loading.load_gguf_model(path, loading.read_gguf_config(path), AutoModelForCausalLM).model


def with_config(model, **changes):
    """The same weights under another config."""
    other = LlamaForCausalLM(LlamaConfig(**{**model.config.to_dict(), **changes}))
    other.load_state_dict(model.state_dict(), strict=False)
    return other.eval()


def refusal(path):
    with pytest.raises(TriformError) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("keys", "rope"),
    [
        ({"scaling.type": "linear", "scaling.factor": 8.0}, {"rope_type": "linear", "factor": 8.0}),
        ({"scale_linear": 4.0}, {"rope_type": "linear", "factor": 4.0}),
        (
            {"scaling.type": "yarn", "scaling.factor": 4.0, "scaling.original_context_length": 24},
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 24},
        ),
        (
            {
                "scaling.type": "yarn", "scaling.factor": 4.0, "scaling.original_context_length": 24,
                "scaling.yarn_beta_fast": 2.0, "scaling.yarn_beta_slow": 0.5, "scaling.yarn_attn_factor": 1.7,
            },
            {
                "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 24, "beta_fast": 2.0,
                "beta_slow": 0.5, "attention_factor": 1.7,
            },
        ),
        ({"scaling.type": "none", "scaling.factor": 8.0}, {"rope_type": "default"}),
    ],
    ids=["linear", "linear by its old key", "yarn", "yarn with its own factors", "none"],
)  # fmt: skip
def test_scaled_positions(llama, tmp_path, keys, rope):
    path = write_gguf(tmp_path / "a.gguf", "llama", llama, keys={f"llama.rope.{key}": v for key, v in keys.items()})
    expected = with_config(llama, rope_parameters={"rope_theta": 10000.0, **rope})
    torch.testing.assert_close(logits(read(path)), logits(expected), rtol=1e-4, atol=1e-4)


def test_frequency_factors_divide_the_frequencies(llama, tmp_path):
    factors = np.linspace(1, 8, HEAD // 2, dtype=np.float32)
    path = write_gguf(tmp_path / "a.gguf", "llama", llama, tensors={"rope_freqs.weight": factors})
    frequencies = read(path).model.rotary_emb.inv_freq
    plain = 10000.0 ** (-torch.arange(0, HEAD, 2) / HEAD)
    torch.testing.assert_close(frequencies, plain / torch.from_numpy(factors))


def test_factors_of_llama3_are_llama3(llama, tmp_path):
    rope = {
        "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }  # fmt: skip
    expected = with_config(llama, rope_parameters=rope)
    plain = 10000.0 ** (-torch.arange(0, HEAD, 2) / HEAD)
    # What the converter writes for such a config.
    factors = (plain / expected.model.rotary_emb.inv_freq).numpy()
    path = write_gguf(tmp_path / "a.gguf", "llama", llama, tensors={"rope_freqs.weight": factors})
    torch.testing.assert_close(logits(read(path)), logits(expected), rtol=1e-4, atol=1e-4)


def test_longrope_of_phi3(tmp_path):
    long, short = [1.0, 1.5], [1.0, 1.2]
    rope = {
        "rope_type": "longrope", "rope_theta": 10000.0, "long_factor": long, "short_factor": short,
        "original_max_position_embeddings": 12, "partial_rotary_factor": 0.5, "attention_factor": 1.3,
    }  # fmt: skip
    # The class has a length of its own, 4096 by default, which comes before that of the rope parameters.
    model = make_model("phi3", rope_parameters=rope, sliding_window=None, original_max_position_embeddings=12)
    path = write_gguf(
        tmp_path / "a.gguf", "phi3", model,
        keys={
            "phi3.rope.scaling.original_context_length": 12, "phi3.rope.scaling.attn_factor": 1.3,
            "phi3.attention.sliding_window": 0,
        },
        tensors={
            "rope_factors_long.weight": np.array(long, np.float32),
            "rope_factors_short.weight": np.array(short, np.float32),
        },
    )  # fmt: skip
    # 20 tokens are more than the original 12, so the long factors count.
    torch.testing.assert_close(logits(read(path)), logits(model), rtol=1e-4, atol=1e-4)


def test_biases_of_queries_keys_and_values_alone(llama, tmp_path):
    expected = with_config(llama, attention_bias=True)
    extra = {}
    with torch.no_grad():
        for index, layer in enumerate(expected.model.layers):
            layer.self_attn.o_proj.bias.zero_()
            for part, heads in (("q", 6), ("k", 2), ("v", None)):
                bias = getattr(layer.self_attn, f"{part}_proj").bias
                bias.copy_(torch.linspace(-1, 1, len(bias)))
                rows = bias.numpy() if heads is None else rotated(bias.numpy(), heads)
                extra[f"blk.{index}.attn_{part}.bias"] = rows.copy()
    path = write_gguf(tmp_path / "a.gguf", "llama", llama, tensors=extra)
    assert not torch.allclose(logits(expected), logits(llama))
    torch.testing.assert_close(logits(read(path)), logits(expected), rtol=1e-4, atol=1e-4)


def test_a_head_of_its_own_and_a_shared_one(tmp_path):
    for tied in (True, False):
        model = make_model("qwen3", tie_word_embeddings=tied)
        found = read(write_gguf(tmp_path / f"{tied}.gguf", "qwen3", model))
        assert found.config.tie_word_embeddings is tied
        torch.testing.assert_close(logits(found), logits(model), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [Format.F16, Format.BF16])
def test_half_precision(llama, tmp_path, kind):
    path = write_gguf(tmp_path / "a.gguf", "llama", llama, format_of=kind)
    dtype = torch.float16 if kind is Format.F16 else torch.bfloat16
    expected = llama.get_input_embeddings().weight.to(dtype).float()
    assert torch.equal(read(path).get_input_embeddings().weight, expected)


def split(path, count, *, names=True, said=None, twice=None, more=None):
    """A file in parts: keys in the first, tensors one after the other in all.

    The second part may say another count, hold a tensor of the first too, or have keys of its own.
    """
    reader = gguf.GGUFReader(path)
    parts = []
    for number in range(count):
        name = f"m-{number + 1:05d}-of-{count:05d}.gguf" if names else f"part{number}.gguf"
        writer = gguf.GGUFWriter(str(path.parent / name), "llama")
        if number == 0:
            for field in reader.fields.values():
                if not field.name.startswith(("GGUF.", "general.architecture")):
                    sub = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
                    writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=sub)
        writer.add_uint16("split.no", number)
        writer.add_uint16("split.count", said if said and number else count)
        for key, value in (more or {}).items() if number else ():
            writer.add_float32(key, value)
        for tensor in reader.tensors[number::count]:
            writer.add_tensor(tensor.name, np.array(tensor.data))
        if twice and number:
            writer.add_tensor(twice, np.ones(48, np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        parts.append(path.parent / name)
    return parts


def test_parts_are_read_together(llama, tmp_path):
    parts = split(write_gguf(tmp_path / "whole.gguf", "llama", llama), 3)
    for part in parts:
        assert torch.equal(logits(read(part)), logits(read(tmp_path / "whole.gguf")))
    parts[1].unlink()
    assert "m-00002-of-00003.gguf is not beside it" in refusal(parts[0])


def test_parts_whose_names_were_exchanged(llama, tmp_path):
    parts = split(write_gguf(tmp_path / "whole.gguf", "llama", llama), 2)
    parts[0].rename(tmp_path / "kept")
    parts[1].rename(parts[0])
    (tmp_path / "kept").rename(parts[1])
    assert torch.equal(logits(read(parts[1])), logits(read(tmp_path / "whole.gguf")))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"said": 3}, "m-00002-of-00002.gguf is one of 3 parts, and there are 2"),
        ({"twice": "blk.0.attn_norm.weight"}, "m-00002-of-00002.gguf holds blk.0.attn_norm.weight, which another part"),
        ({"more": {"llama.rope.scaling.factor": 4.0}}, "has a llama.rope.scaling.factor of its own"),
        ({"more": {"llama.attention.layer_norm_rms_epsilon": 0.5}}, "they are not parts of one model"),
    ],
)
def test_parts_of_different_models(llama, tmp_path, changes, message):
    parts = split(write_gguf(tmp_path / "whole.gguf", "llama", llama), 2, **changes)
    for part in parts:
        assert message in refusal(part)


def changed(path, key, size, value):
    """A file, with other bytes behind what is `size` bytes behind the last place of a key."""
    content = bytearray(path.read_bytes())
    place = content.rindex(key) + len(key) + size
    content[place : place + len(value)] = value
    path.write_bytes(content)
    return path


# Of a vector: the number of its dimensions, its length, and its format, of 4, 8 and 4 bytes.
_TO_FORMAT, _TO_OFFSET = 4 + 8, 4 + 8 + 4


@pytest.mark.parametrize(
    ("key", "size", "value", "message"),
    [
        # llama.cpp's reader (gguf.cpp) refuses these too.
        (b"general.alignment", 4, (0).to_bytes(4, "little"), "general.alignment = 0, which is no power of two"),
        (b"general.alignment", 4, (24).to_bytes(4, "little"), "general.alignment = 24, which is no power of two"),
        (b"blk.1.attn_norm.weight", _TO_FORMAT, (1).to_bytes(4, "little"), "but the tensors before it end at"),
        (b"blk.1.attn_norm.weight", _TO_OFFSET, (0).to_bytes(8, "little"), "blk.1.attn_norm.weight is at 0, but"),
        (b"blk.1.attn_norm.weight", -22, b"blk.0.attn_norm.weight", "the tensor 'blk.0.attn_norm.weight' twice"),
        (b"llama.rope.freq_base", -20, b"llama.context_length", "the key 'llama.context_length' twice"),
    ],
)
def test_a_file_that_contradicts_itself(llama, tmp_path, key, size, value, message):
    keys = {"general.alignment": 32, "llama.rope.freq_base": 1e4, "llama.context_length": 96}
    path = write_gguf(tmp_path / "a.gguf", "llama", llama, keys=keys)
    assert message in refusal(changed(path, key, size, value))


def test_a_part_under_another_name(llama, tmp_path):
    parts = split(write_gguf(tmp_path / "whole.gguf", "llama", llama), 2, names=False)
    assert "is part 1 of 2" in refusal(parts[0])


@pytest.mark.parametrize(
    ("eos", "more", "keys", "ends"),
    [
        (1, (), {"eot_token_id": 0}, [1, 0]),
        (1, (), {"eot_token_id": 0, "eom_token_id": 5}, [1, 0, 5]),
        (1, (), {"eos_token_ids": [7, 1, 6]}, [1, 7, 6]),
        (1, ("<|im_end|>", "<end_of_turn>"), {}, [1, 259, 260]),
        (1, ("</s>", "<|im_end|>"), {}, [1, 260, 259]),
        (1, ("<|end|>", "<|return|>", "<|call|>"), {}, [1, 260, 261]),
    ],
    ids=["end of turn", "end of message", "a list", "by name", "an end of older models", "an end of messages only"],
)
def test_what_ends_an_answer(llama, tmp_path, eos, more, keys, ends):
    vocabulary = byte_vocabulary(*more, eos_token_id=eos, **keys)
    vocabulary["token_type"] = [CONTROL] * 2 + [NORMAL] * 257 + [CONTROL] * len(more)
    model = make_model("llama", vocab_size=259 + len(more) + 1)
    path = write_gguf(
        tmp_path / "a.gguf", "llama", model, vocabulary={f"tokenizer.ggml.{key}": v for key, v in vocabulary.items()}
    )
    assert read(path).generation_config.eos_token_id == ends


@pytest.mark.parametrize("kind", [NORMAL, USER_DEFINED])
def test_ends_that_a_converter_took_for_other_tokens(llama, tmp_path, kind):
    """llama.cpp takes a token with the name of an end for one whatever its kind, but not the end of older models."""
    vocabulary = byte_vocabulary("<|im_end|>", "</s>")
    vocabulary["token_type"][-2:] = [kind, kind]
    model = make_model("llama", vocab_size=261)
    path = write_gguf(
        tmp_path / "a.gguf", "llama", model, vocabulary={f"tokenizer.ggml.{key}": v for key, v in vocabulary.items()}
    )
    assert read(path).generation_config.eos_token_id == [1, 259]
    assert loading.load_gguf_tokenizer(path)("t<|im_end|>")["input_ids"][-1] == 259


def test_sampling_that_the_file_asks_for(llama, tmp_path):
    keys = {"general.sampling.temp": 0.5, "general.sampling.top_k": 7, "tokenizer.ggml.suppress_tokens": [4, 5]}
    config = read(write_gguf(tmp_path / "a.gguf", "llama", llama, keys=keys)).generation_config
    assert (config.do_sample, config.temperature, config.top_k) == (True, 0.5, 7)
    assert config.suppress_tokens == [4, 5]


def test_what_nothing_reads_is_named(llama, tmp_path):
    def message(**changes):
        return refusal(write_gguf(tmp_path / "a.gguf", "llama", llama, **changes))

    extra = np.ones(260, np.float32)
    assert "output.bias" in message(tensors={"output.bias": extra})
    assert "blk.1.attn_sinks.weight" in message(tensors={"blk.1.attn_sinks.weight": extra})
    assert "llama.rope.scaling.alpha" in message(keys={"llama.rope.scaling.alpha": 3.0})
    assert "llama.attention.scale" in message(keys={"llama.attention.scale": 0.3})
    assert "has no llama.expert_used_count" in message(keys={"llama.expert_count": 8})
    assert "llama.expert_used_count = 2" in message(keys={"llama.expert_used_count": 2})
    assert "'su'" in message(keys={"llama.rope.scaling.type": "su"})
    assert "llama.attention.value_length = 8" in message(keys={"llama.attention.value_length": 8})


def test_a_missing_matrix_is_missed(llama, tmp_path):
    path = write_gguf(tmp_path / "a.gguf", "llama", llama, left_out=["blk.2.ffn_up.weight"])
    found = loading.load_gguf_model(path, loading.read_gguf_config(path), AutoModelForCausalLM)
    assert found.missing == ("model.layers.2.mlp.up_proj.weight",)


def test_damaged_files(llama, tmp_path):
    path = write_gguf(tmp_path / "a.gguf", "llama", llama)
    whole = path.read_bytes()

    def message(content):
        path.write_bytes(content)
        return refusal(path)

    assert "is the download complete" in message(whole[:-100])
    assert "ends in the middle of its header" in message(whole[:500])
    assert "ends in the middle of its header" in message(whole[:6])
    assert "does not begin with the bytes GGUF" in message(b"hello" + whole)
    assert "written for big-endian machines" in message(whole[:4] + b"\0\0\0\x03" + whole[8:])
    assert "version 9" in message(whole[:4] + b"\x09" + whole[5:])
    at = whole.index(b"output_norm.weight") + len("output_norm.weight") + 4 + 8
    assert "in format 99, which is not known here" in message(whole[:at] + b"\x63" + whole[at + 1 :])


def test_an_architecture_that_is_not_known(llama, tmp_path):
    path = write_gguf(tmp_path / "a.gguf", "llama", llama)
    path.write_bytes(path.read_bytes().replace(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0rwkv9", 1))
    with pytest.raises(UnsupportedError, match="architecture rwkv9, which is not supported; those that are: llama"):
        loading.read_gguf_config(path)


def test_a_projector_without_a_type(tmp_path):
    with pytest.raises(ExportError, match=r"only a part of a model \(mmproj\)"):
        architecture_of(GgufFile(tmp_path / "mmproj.gguf", {"general.architecture": "clip"}, {}))


def test_a_token_of_minus_one_is_none(llama, tmp_path):
    path = write_gguf(tmp_path / "a.gguf", "llama", llama, keys={"tokenizer.ggml.padding_token_id": 2**32 - 1})
    assert loading.load_gguf_tokenizer(path).pad_token is None


def test_an_adapter_is_no_model(llama, tmp_path):
    path = write_gguf(tmp_path / "a.gguf", "llama", llama, keys={"general.type": "adapter"})
    with pytest.raises(ExportError, match="is only a part of a model"):
        loading.read_gguf_config(path)


def test_a_share_of_a_head_that_the_class_does_not_rotate_is_refused(llama, tmp_path):
    path = write_gguf(tmp_path / "a.gguf", "llama", llama, keys={"llama.rope.dimension_count": HEAD // 2})
    assert refusal(path) == (
        "a.gguf has llama.rope.dimension_count = 8, which is not supported: its model rotates 16 dimensions"
    )


def test_falcon_2_whose_files_lack_the_rotary_base_is_refused(tmp_path):
    changes = {"num_kv_heads": 2, "new_decoder_architecture": True, "num_ln_in_parallel_attn": 1}
    path = write_gguf(tmp_path / "a.gguf", "falcon", make_model("falcon", **changes))
    assert refusal(path) == "a.gguf has falcon.attention.head_count_kv = 2, which is not supported"
