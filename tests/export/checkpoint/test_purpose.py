"""What a checkpoint is for: by the user, modules.json, an adapter, heads whose weights are there, the class name."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from transformers import AutoConfig

from tests.checkpoints.encoders import BERT
from triform.export.checkpoint.files.weights import find_weights, load_tensors
from triform.export.checkpoint.loading import load_model, read_config
from triform.export.checkpoint.purpose import UNUSED, decide_purpose
from triform.export.checkpoint.resolve import find_checkpoint
from triform.models.catalog import auto_class
from triform.runtime.errors import ExportError, InputError, UnsupportedError

ELECTRA = {**BERT, "embedding_size": 32, "num_hidden_layers": 1}
BART = {
    "vocab_size": 60, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 40,
}  # fmt: skip
T5 = {"vocab_size": 60, "d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 1, "num_heads": 2}
POOLING = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
]


def saved(folder, architecture, settings, **changes):
    """A random model of a class of transformers, saved."""
    model_class = getattr(transformers, architecture)
    torch.manual_seed(0)
    model_class(model_class.config_class(**{**settings, **changes})).save_pretrained(folder)
    return folder


def purpose(folder, task=None):
    source = find_checkpoint(str(folder))
    return decide_purpose(source, read_config(source), task)


def decided(folder, task=None):
    found = purpose(folder, task)
    return found.form, found.task, found.because


def renamed(folder, architecture):
    """Let a folder's config name another class."""
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = None if architecture is None else [architecture]
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def as_sentence_transformer(folder, modules=POOLING, **pooling):
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder


class TestClassNames:
    @pytest.mark.parametrize(
        ("architecture", "task"),
        [
            ("BertModel", "feature-extraction"),
            ("BertForMaskedLM", "fill-mask"),
            ("BertForPreTraining", "fill-mask"),
            ("BertForSequenceClassification", "text-classification"),
            ("BertForTokenClassification", "token-classification"),
            ("BertForQuestionAnswering", "question-answering"),
            ("BertForNextSentencePrediction", "next-sentence-prediction"),
        ],
    )
    def test_of_encoders(self, tmp_path, architecture, task):
        saved(tmp_path, architecture, BERT, num_hidden_layers=1)
        assert decided(tmp_path) == ("encoder", task, f"the class name {architecture}")

    @pytest.mark.parametrize("architecture", ["XLMWithLMHeadModel", "FlaubertWithLMHeadModel"])
    def test_of_encoders_that_are_called_as_decoders_are(self, tmp_path, architecture):
        saved(tmp_path, architecture, {"vocab_size": 60, "emb_dim": 32, "n_layers": 1, "n_heads": 2})
        assert decided(tmp_path) == ("encoder", "fill-mask", f"the class name {architecture}")

    def test_of_decoders(self, llama):
        assert decided(llama) == ("decoder", "text-generation", "the class name LlamaForCausalLM")
        renamed(llama, None)
        assert decided(llama) == ("decoder", "text-generation", "the model type llama")

    def test_of_a_reader_of_texts_in_a_family_that_reads_images(self, tmp_path):
        settings = {"num_latents": 3, "d_latents": 32, "d_model": 16, "num_self_attends_per_block": 1,
                    "num_self_attention_heads": 2, "num_cross_attention_heads": 2, "vocab_size": 60}  # fmt: skip
        saved(tmp_path, "PerceiverForMaskedLM", settings)
        assert decided(tmp_path) == ("encoder", "fill-mask", "the class name PerceiverForMaskedLM")

    @pytest.mark.parametrize(
        ("architecture", "settings"), [("BartForConditionalGeneration", BART), ("T5ForConditionalGeneration", T5)]
    )
    def test_of_encoder_decoders(self, tmp_path, architecture, settings):
        saved(tmp_path, architecture, settings)
        expected = ("encoder-decoder", "text2text-generation", f"the class name {architecture}")
        assert decided(tmp_path) == expected

    @pytest.mark.parametrize(
        ("architecture", "settings"), [("BartForSequenceClassification", BART), ("T5ForSequenceClassification", T5)]
    )
    def test_classifiers_on_encoder_decoders(self, tmp_path, architecture, settings):
        saved(tmp_path, architecture, settings)
        for task in (None, "text-classification", "zero-shot-classification"):
            assert decided(tmp_path, task)[:2] == ("encoder", "text-classification")

    def test_other_heads_on_encoder_decoders_are_refused_by_name(self, tmp_path):
        saved(tmp_path, "BartForConditionalGeneration", BART)
        with pytest.raises(UnsupportedError, match="heads on encoder-decoders, here BartForConditionalGeneration"):
            purpose(tmp_path, "fill-mask")


class TestHeads:
    def test_a_discriminator_has_no_head_that_fills_masks(self, tmp_path):
        saved(tmp_path, "ElectraForPreTraining", ELECTRA)
        found = purpose(tmp_path)
        assert (found.form, found.task) == ("encoder", "feature-extraction")
        source = find_checkpoint(str(tmp_path))
        checkpoint = load_model(source, read_config(source), auto_class(read_config(source), found.task))
        assert {name.split(".")[0] for name in checkpoint.left_out} == {"discriminator_predictions"}
        expected = transformers.ElectraModel.from_pretrained(tmp_path)
        ids = torch.tensor([[2, 7, 9, 3]])
        assert torch.equal(checkpoint.model(ids).last_hidden_state, expected(ids).last_hidden_state)

    def test_the_same_without_the_weights(self, tmp_path):
        saved(tmp_path, "ElectraForPreTraining", ELECTRA)
        source = find_checkpoint(str(tmp_path), weights=False)
        assert decide_purpose(source, read_config(source), None).task == "feature-extraction"

    @pytest.mark.parametrize(("architecture", "settings"), [("BartModel", BART), ("T5Model", T5)])
    def test_a_bare_encoder_decoder_whose_head_is_its_embedding(self, tmp_path, architecture, settings):
        saved(tmp_path, architecture, settings)
        assert decided(tmp_path)[:2] == ("encoder-decoder", "text2text-generation")

    @pytest.mark.parametrize(("architecture", "settings"), [("BartModel", BART), ("T5Model", T5)])
    def test_a_bare_encoder_decoder_without_its_head(self, tmp_path, architecture, settings):
        saved(tmp_path, architecture, settings)
        config = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
        with pytest.raises(UnsupportedError, match=f"{architecture} writes no text: it has no weights of a head"):
            purpose(tmp_path)

    def test_a_head_that_the_class_name_does_not_tell_of(self, tmp_path):
        saved(tmp_path, "BertForTokenClassification", BERT, num_hidden_layers=1)
        renamed(tmp_path, "BertModel")
        assert decided(tmp_path) == ("encoder", "token-classification", "the head whose weights are there")

    def test_a_class_name_with_a_head_that_is_not_there(self, tmp_path):
        saved(tmp_path, "BertModel", BERT, num_hidden_layers=1)
        renamed(tmp_path, "BertForMaskedLM")
        found = purpose(tmp_path)
        assert found.task == "feature-extraction"
        assert "no head" in found.because

    def test_a_decoder_without_its_head_is_not_made_into_something_else(self, llama):
        tensors = load_tensors(find_weights(llama))
        del tensors["lm_head.weight"]
        (llama / "model.safetensors").unlink()
        torch.save(tensors, llama / "pytorch_model.bin")
        assert purpose(llama).task == "text-generation"
        source = find_checkpoint(str(llama))
        with pytest.raises(ExportError, match=r"lacks 1 weights its config asks for, such as lm_head\.weight"):
            load_model(source, read_config(source), transformers.AutoModelForCausalLM)

    def test_a_bare_decoder_gives_vectors(self, tmp_path):
        settings = {"vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1,
                    "num_attention_heads": 2, "num_key_value_heads": 2}  # fmt: skip
        saved(tmp_path, "LlamaModel", settings)
        assert decided(tmp_path) == ("encoder", "feature-extraction", "the class name LlamaModel")

    def test_a_classifier_on_a_decoder(self, tmp_path):
        settings = {"vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1,
                    "num_attention_heads": 2, "num_key_value_heads": 2}  # fmt: skip
        saved(tmp_path, "LlamaForSequenceClassification", settings)
        assert decided(tmp_path)[:2] == ("encoder", "text-classification")


class TestModules:
    def test_they_come_before_the_class_name(self, bert, llama):
        for folder in (bert, llama):
            as_sentence_transformer(folder, pooling_mode_lasttoken=True)
            assert decided(folder) == ("encoder", "feature-extraction", "modules.json")

    def test_the_user_comes_before_them(self, bert):
        as_sentence_transformer(bert, pooling_mode_cls_token=True)
        assert decided(bert, "fill-mask") == ("encoder", "fill-mask", "--task")

    @pytest.mark.parametrize(
        "kind",
        ["sparse_encoder.models.SpladePooling", "models.CNN", "models.LSTM", "models.WordWeights", "models.Asym",
         "base.modules.router.Router", "models.WeightedLayerPooling", "models.BoW"],
    )  # fmt: skip
    def test_modules_that_are_not_supported_are_named(self, bert, kind):
        modules = [POOLING[0], {"path": "1_Pooling", "type": f"sentence_transformers.{kind}"}]
        as_sentence_transformer(bert, modules)
        with pytest.raises(ExportError, match=rf"has a module sentence_transformers\.{kind}, which is not supported"):
            purpose(bert)

    def test_modules_of_somebody_else(self, bert):
        as_sentence_transformer(bert, [{"path": "", "type": "custom_st.Transformer"}])
        with pytest.raises(ExportError, match=r"has a module custom_st\.Transformer, which is not supported"):
            purpose(bert)

    def test_a_cross_encoder(self, tmp_path):
        saved(tmp_path, "BertForSequenceClassification", BERT, num_hidden_layers=1, num_labels=1)
        (tmp_path / "modules.json").write_text(json.dumps(POOLING[:1]))
        reading = {"transformer_task": "sequence-classification", "max_seq_length": 30}
        (tmp_path / "sentence_bert_config.json").write_text(json.dumps(reading))
        assert decided(tmp_path) == ("encoder", "text-classification", "modules.json")
        (tmp_path / "sentence_bert_config.json").write_text('{"transformer_task": "text-generation"}')
        with pytest.raises(ExportError, match="is for text-generation, which is not supported"):
            purpose(tmp_path)


class TestTasksByName:
    @pytest.mark.parametrize("name", ["text-generation", "conversational"])
    def test_decoders(self, llama, name):
        assert decided(llama, name) == ("decoder", "text-generation", "--task")

    @pytest.mark.parametrize("name", ["text2text-generation", "translation", "translation_en_to_de", "summarization"])
    def test_encoder_decoders(self, tmp_path, name):
        saved(tmp_path, "BartForConditionalGeneration", BART)
        assert decided(tmp_path, name) == ("encoder-decoder", "text2text-generation", "--task")

    @pytest.mark.parametrize(
        ("name", "task"),
        [
            ("sentence-similarity", "feature-extraction"),
            ("text-ranking", "text-classification"),
            ("zero-shot-classification", "text-classification"),
            ("sentiment-analysis", "text-classification"),
            ("ner", "token-classification"),
        ],
    )
    def test_encoders(self, bert, name, task):
        assert decided(bert, name) == ("encoder", task, "--task")

    def test_what_a_model_is_not_for(self, bert, llama):
        for folder, name, message in (
            (bert, "translation", "bert models are not for text2text-generation"),
            (llama, "automatic-speech-recognition", "llama models are not for automatic-speech-recognition"),
            (bert, "text-generation", "bert models are not supported as decoders"),
            (bert, "text-to-video", "no task is called text-to-video; there are: text-generation, text2text"),
        ):
            with pytest.raises(UnsupportedError, match=message):
                purpose(folder, name)

    def test_speech(self, whisper_folder):
        assert decided(whisper_folder)[:2] == ("encoder-decoder", "automatic-speech-recognition")
        assert decided(whisper_folder, "automatic-speech-recognition")[2] == "--task"

    def test_static_vectors(self, tmp_path):
        (tmp_path / "words.txt").write_text("a 1.0 2.0\nb 3.0 4.0\n")
        assert purpose(tmp_path / "words.txt").task == "feature-extraction"
        assert purpose(tmp_path / "words.txt", "sentence-similarity").form == "static"
        with pytest.raises(InputError, match="--task fill-mask is not for static embeddings"):
            purpose(tmp_path / "words.txt", "fill-mask")


class TestAccounts:
    def test_a_tensor_that_nothing_reads_stops_it(self, llama):
        tensors = load_tensors(find_weights(llama))
        (llama / "model.safetensors").unlink()
        for name in ("model.layers.0.self_attn.q_proj.bias", "lm_head.bias", "model.extra_norm.weight"):
            torch.save({**tensors, name: torch.ones(96)}, llama / "pytorch_model.bin")
            source = find_checkpoint(str(llama))
            with pytest.raises(ExportError, match=f"a LlamaForCausalLM does not read and that would be lost: {name};"):
                load_model(source, read_config(source), transformers.AutoModelForCausalLM)

    def test_a_layer_beyond_the_config(self, llama):
        config = json.loads((llama / "config.json").read_text())
        (llama / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 0, "layer_types": []}))
        source = find_checkpoint(str(llama))
        with pytest.raises(ExportError, match=r"would be lost: model\.layers\.0\..* and 6 more"):
            load_model(source, read_config(source), transformers.AutoModelForCausalLM)

    def test_buffers_and_copies_are_no_loss(self, llama):
        tensors = load_tensors(find_weights(llama))
        (llama / "model.safetensors").unlink()
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
        tensors["model.layers.0.self_attn.rotary_emb.cos_cached"] = torch.ones(1, 1, 64, 8)
        torch.save(tensors, llama / "pytorch_model.bin")
        source = find_checkpoint(str(llama))
        assert load_model(source, read_config(source), transformers.AutoModelForCausalLM).left_out == ()

    @pytest.mark.parametrize("task", ["feature-extraction", "fill-mask", "next-sentence-prediction"])
    def test_heads_for_other_tasks_are_left_out_and_listed(self, tmp_path, task):
        saved(tmp_path, "BertForPreTraining", BERT, num_hidden_layers=1)
        source = find_checkpoint(str(tmp_path))
        config = AutoConfig.from_pretrained(tmp_path)
        checkpoint = load_model(source, config, auto_class(config, task), unused=UNUSED.get(task, ()))
        told = {".".join(name.split(".")[:2]) for name in checkpoint.left_out}
        assert (
            told
            == {
                "feature-extraction": {"cls.predictions", "cls.seq_relationship"},
                "fill-mask": {"bert.pooler", "cls.seq_relationship"},
                "next-sentence-prediction": {"cls.predictions"},
            }[task]
        )

    def test_a_projection_that_no_class_knows(self, bert):
        tensors = load_tensors(find_weights(bert))
        torch.save({**tensors, "linear.weight": torch.ones(8, 48)}, bert / "pytorch_model.bin")
        (bert / "model.safetensors").unlink()
        source = find_checkpoint(str(bert))
        with pytest.raises(ExportError, match=r"would be lost: linear\.weight"):
            load_model(source, read_config(source), transformers.AutoModel)


def test_a_class_whose_head_is_missing_in_a_family_without_vectors(tmp_path):
    """BART has no task of vectors to compare heads with: it is what its class says; loading it is refused later."""
    saved(tmp_path, "BartForQuestionAnswering", BART)
    renamed(tmp_path, "BartForSequenceClassification")
    name = "the class name BartForSequenceClassification"
    assert decided(tmp_path) == ("encoder", "text-classification", name)
