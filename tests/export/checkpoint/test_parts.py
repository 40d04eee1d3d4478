"""Checkpoints of several parts: what a bundle does not have of them is refused or named, never lost in silence."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
import transformers
from safetensors.torch import save_file

from tests.checkpoints.layouts import bert_tokenizer
from tests.export.checkpoint.test_purpose import T5, purpose, saved
from triform.export.checkpoint.files.weights import find_weights, load_tensors
from triform.export.checkpoint.loading import load_model, of_texts, read_config
from triform.export.checkpoint.purpose import decide_purpose
from triform.export.checkpoint.resolve import find_checkpoint
from triform.export.checkpoint.source import Checkpoint
from triform.export.forms import decoder
from triform.export.options import ExportOptions
from triform.models.architectures import more_than_text
from triform.models.catalog import auto_class
from triform.runtime.errors import UnsupportedError

# A model that hears, reads, writes and speaks: a text encoder, units of speech and a vocoder besides.
SEAMLESS = {
    "vocab_size": 60, "hidden_size": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 40,
    "decoder_ffn_dim": 48, "encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_position_embeddings": 50,
    "speech_encoder_layers": 1, "speech_encoder_attention_heads": 2, "speech_encoder_intermediate_size": 24,
    "feature_projection_input_dim": 20, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 4,
    "conv_depthwise_kernel_size": 5, "adaptor_kernel_size": 4, "adaptor_stride": 4, "max_source_positions": 70,
    "t2u_vocab_size": 90, "t2u_encoder_layers": 1, "t2u_encoder_ffn_dim": 36, "t2u_encoder_attention_heads": 2,
    "t2u_decoder_layers": 1, "t2u_decoder_ffn_dim": 28, "t2u_decoder_attention_heads": 2, "unit_embed_dim": 24,
    "upsample_initial_channel": 16, "upsample_rates": [2, 2], "upsample_kernel_sizes": [4, 4],
    "unit_hifi_gan_vocab_size": 80, "lang_embed_dim": 12, "spkr_embed_dim": 6, "vocoder_num_langs": 3,
    "vocoder_num_spkrs": 2, "resblock_kernel_sizes": [3], "resblock_dilation_sizes": [[1, 3]],
}  # fmt: skip
HEARING = "automatic-speech-recognition"


def loaded(folder, task):
    source = find_checkpoint(str(folder))
    config = read_config(source)
    return load_model(source, config, auto_class(config, task))


@pytest.mark.parametrize("architecture", ["SeamlessM4TModel", "SeamlessM4Tv2Model"])
def test_a_model_that_speaks_too_is_refused_with_the_task_that_leaves_it_out(architecture, tmp_path):
    # Only the config: what parts a class has needs no weights.
    config = getattr(transformers, architecture).config_class(**SEAMLESS, char_vocab_size=30)
    config.architectures = [architecture]
    config.save_pretrained(tmp_path)
    source = find_checkpoint(str(tmp_path), weights=False)
    parts = r"no use for: t2u_model, text_encoder, vocoder; --task automatic-speech-recognition exports it without them"
    with pytest.raises(UnsupportedError, match=f"{architecture} has parts that a bundle for {HEARING} has {parts}"):
        decide_purpose(source, read_config(source), None)
    assert decide_purpose(source, read_config(source), HEARING).form == "encoder-decoder"


def test_with_that_task_each_part_that_is_left_out_is_named(tmp_path):
    saved(tmp_path, "SeamlessM4TModel", SEAMLESS)
    with pytest.raises(UnsupportedError, match="text_encoder"):
        purpose(tmp_path)
    checkpoint = loaded(tmp_path, HEARING)
    counts = Counter(name.split(".")[0] for name in load_tensors(find_weights(tmp_path)))
    left = {part: counts[part] for part in ("t2u_model", "text_encoder", "vocoder")}
    assert checkpoint.parts_left_out == left
    assert Counter(name.split(".")[0] for name in checkpoint.left_out) == left


def test_a_decoder_that_transformers_skips_without_a_word_is_named(tmp_path):
    saved(tmp_path, "T5ForConditionalGeneration", T5)
    checkpoint = loaded(tmp_path, "feature-extraction")
    names = set(load_tensors(find_weights(tmp_path)))
    assert set(checkpoint.left_out) == {name for name in names if name.startswith("decoder.")}
    assert set(checkpoint.parts_left_out) == {"decoder"}


def test_of_what_transformers_skips_parts_are_named_and_old_buffers_are_not(llama, monkeypatch):
    tensors = load_tensors(find_weights(llama))
    (llama / "model.safetensors").unlink()
    more = ("mtp.layers.0.weight", "mtp.norm.weight", "model.layers.0.self_attn.masked_bias")
    torch.save({**tensors, **{name: torch.ones(9) for name in more}}, llama / "pytorch_model.bin")
    skipped = [r"^mtp.*", "masked_bias"]
    monkeypatch.setattr(transformers.LlamaForCausalLM, "_keys_to_ignore_on_load_unexpected", skipped)
    checkpoint = loaded(llama, "text-generation")
    assert checkpoint.left_out == more[:2]
    assert checkpoint.parts_left_out == {"mtp": 2}


@pytest.mark.parametrize("prefix", ["transformer.", ""])
@pytest.mark.parametrize(
    ("config", "buffers"),
    [
        (transformers.GPT2Config(n_embd=12, n_layer=1, n_head=2), ("attn.bias", "attn.masked_bias")),
        (
            transformers.GPTNeoConfig(hidden_size=12, num_layers=1, num_heads=2, attention_types=[[["local"], 1]]),
            ("attn.attention.bias", "attn.attention.masked_bias"),
        ),
        (transformers.OpenAIGPTConfig(n_embd=12, n_layer=1, n_head=2), ("attn.bias",)),
        (transformers.GPTBigCodeConfig(n_embd=12, n_layer=1, n_head=2), ("attn.bias", "attn.masked_bias")),
    ],
    ids=["gpt2", "gpt_neo", "openai-gpt", "gpt_bigcode"],
)
def test_masks_that_older_releases_saved_are_no_weights(config, buffers, prefix, tmp_path):
    """The files of gpt-neo-125m and openai-gpt have them, too."""
    config.vocab_size, config.n_positions, config.max_position_embeddings = 50, 16, 16
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config)
    model.save_pretrained(tmp_path)
    tensors = {name.removeprefix("transformer."): value for name, value in load_tensors(find_weights(tmp_path)).items()}
    masks = {f"h.0.{name}": torch.ones(1, 1, 16, 16) for name in buffers}
    save_file(
        {name if name.startswith("lm_head") else f"{prefix}{name}": value for name, value in (tensors | masks).items()},
        tmp_path / "model.safetensors",
    )
    found = loaded(tmp_path, "text-generation")
    assert found.left_out == () and found.missing == ()
    assert all(torch.equal(value, found.model.state_dict()[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    "architecture",
    ["SpeechT5ForTextToSpeech", "ClvpModelForConditionalGeneration", "FastSpeech2ConformerWithHifiGan", "ClapModel",
     "Blip2ForConditionalGeneration", "Kosmos2ForConditionalGeneration", "BarkModel"],
)  # fmt: skip
def test_other_models_of_several_parts_are_refused(architecture, tmp_path):
    config = getattr(transformers, architecture).config_class()
    config.architectures = [architecture]
    config.save_pretrained(tmp_path)
    source = find_checkpoint(str(tmp_path), weights=False)
    with pytest.raises(UnsupportedError, match=f"^{architecture} (is for|reads) "):
        decide_purpose(source, read_config(source), None)


@pytest.mark.parametrize(
    ("architecture", "what"),
    [
        ("VisualBertModel", "what is seen in an image"),
        ("EvollaModel", "a protein"),
        ("HiggsAudioV2Model", "sounds"),
        ("PocketTTSModel", "sounds"),
        ("BertModel", None),
    ],
)
def test_what_a_class_reads_besides_texts_without_having_to(architecture, what):
    assert more_than_text(getattr(transformers, architecture)) == what


def test_a_model_that_two_tokens_are_not_enough_for_is_noted():
    def model(**inputs):
        assert set(inputs) == {"input_ids", "use_cache"}
        raise ValueError("pixels are missing\nsecond line")

    given = Checkpoint(None, model, None, 0, notes=("first",))
    noted = of_texts(given, "input_ids").notes
    assert noted[0] == "first"
    assert noted[1:] == (
        "what no text reaches is in the bundle, unnamed: a run on two tokens failed (pixels are missing)",
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_parts_of_a_decoder_that_no_text_reaches_are_named(dtype, tmp_path):
    """Weights of 16 bits stay in their file, and are followed like any others."""
    text = {
        "vocab_size": 60, "hidden_size": 48, "intermediate_size": 56, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 128, "sliding_window": 16,
    }  # fmt: skip
    vision = {
        "hidden_size": 24, "intermediate_size": 28, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16,
        "patch_size": 8,
    }  # fmt: skip
    config = transformers.Gemma3Config(
        text_config=text, vision_config=vision, mm_tokens_per_image=4, image_token_index=59
    )
    torch.manual_seed(0)
    transformers.Gemma3ForConditionalGeneration(config).to(dtype).save_pretrained(tmp_path)
    bert_tokenizer().save_pretrained(tmp_path)
    source = find_checkpoint(str(tmp_path))
    checkpoint = decoder.load(source, read_config(source), ExportOptions(task="text-generation"))
    names = [name for name, _ in checkpoint.model.named_parameters()]
    unread = {"model.vision_tower", "model.multi_modal_projector"}
    expected = {part: sum(name.startswith(f"{part}.") for name in names) for part in unread}
    assert dict(checkpoint.parts_left_out) == expected
    assert sorted(checkpoint.left_out) == sorted(
        name for name in names if name.rsplit(".", 1)[0].startswith(tuple(unread))
    )
