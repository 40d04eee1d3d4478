"""Every text-encoder family's float graph equals transformers, for padded batches and for each row alone."""

from __future__ import annotations

from collections import Counter

import onnxruntime as ort
import pytest
import torch

from tests.checkpoints.decoder_families import CONTEXT, VOCAB
from tests.checkpoints.encoder_families import ENCODERS, LAYERS, OWN_ATTENTION, ROTARY, build_encoder, random_model
from triform.export.graph.fusion import fuse
from triform.export.graph.tracing import trace
from triform.export.quantize.blocks import lower_to_float
from triform.export.write import write_graph
from triform.models.encoder.graph import encoder_spec, reference_outputs
from triform.models.encoder.tasks import text_task

LENGTHS = (29, 1, 40, 17)
# As `triform export` allows, which is far above float32 rounding and far below any mistake.
TOLERANCE = 5e-4


def rows(model, lengths=LENGTHS, type_ids=False):
    """A batch padded on the right: what a tokenizer would give for texts of these lengths."""
    generator = torch.Generator().manual_seed(1)
    longest = max(lengths)
    # 3 and above: random ids include the mask token, of which ESM makes something, but no padding.
    ids = torch.randint(3, VOCAB, (len(lengths), longest), generator=generator)
    mask = (torch.arange(longest) < torch.tensor(lengths)[:, None]).long()
    batch = {"input_ids": ids.where(mask.bool(), torch.tensor(model.config.pad_token_id or 0)), "attention_mask": mask}
    if type_ids:
        batch["token_type_ids"] = torch.randint(0, 2, ids.shape, generator=generator) * mask
    return batch


def exported(model, folder, task="feature-extraction", *, hidden_states=False, type_ids=False):
    """A session of the model's float graph, and how many nodes it has of each operator."""
    names = ("input_ids", "attention_mask", *(("token_type_ids",) if type_ids else ()))
    spec, prepared = encoder_spec(model, text_task(task, names, hidden_states), "encoder", CONTEXT)
    with prepared:
        graph = trace(spec)
    fuse(graph)
    lower_to_float(graph)
    write_graph(graph, folder / "encoder.onnx")
    session = ort.InferenceSession(str(folder / "encoder.onnx"), providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == list(spec.outputs)
    return session, Counter(node.op_type for node in graph.graph)


def run(session, batch):
    names = [output.name for output in session.get_outputs()]
    found = session.run(names, {name: tensor.numpy() for name, tensor in batch.items()})
    return {name: torch.from_numpy(value) for name, value in zip(names, found, strict=True)}


def reference(model, batch, **arguments):
    """What transformers says, with its own attention."""
    model.set_attn_implementation("eager")
    with torch.no_grad():
        return model(**batch, **arguments)


def assert_close(actual, expected):
    assert actual.shape == expected.shape
    # Written so that NaN fails.
    assert (actual - expected).abs().max() <= TOLERANCE * expected.abs().max()


def alone(batch, row):
    length = int(batch["attention_mask"][row].sum())
    return {name: tensor[row : row + 1, :length] for name, tensor in batch.items()}


@pytest.mark.parametrize("family", ENCODERS)
def test_family_matches_transformers(family, tmp_path):
    model = build_encoder(family)
    type_ids = family in ("bert", "electra", "albert", "nomic_bert", "deberta-v2")
    batch = rows(model, type_ids=type_ids)
    expected = reference(model, batch).last_hidden_state
    singles = [reference(model, alone(batch, row)).last_hidden_state for row in range(len(LENGTHS))]
    session, counts = exported(model, tmp_path, type_ids=type_ids)
    together = run(session, batch)["last_hidden_state"]
    mask = batch["attention_mask"].bool()
    assert_close(together[mask], expected[mask])
    for row, single in enumerate(singles):
        assert_close(run(session, alone(batch, row))["last_hidden_state"], single)
        assert_close(together[row : row + 1, : LENGTHS[row]], single)
    layers = 1 if family == "qwen3_5_text" else LAYERS
    assert counts["MultiHeadAttention"] == (0 if family in OWN_ATTENTION else layers)
    assert counts["RotaryEmbedding"] == (2 * layers if family in ROTARY else 0)


HEADS = {
    "text-classification": ("BertForSequenceClassification", {"num_labels": 5}),
    "token-classification": ("BertForTokenClassification", {"num_labels": 5}),
    "question-answering": ("BertForQuestionAnswering", {}),
    "next-sentence-prediction": ("BertForNextSentencePrediction", {}),
}


@pytest.mark.parametrize("task", HEADS)
def test_head_matches_transformers(task, tmp_path):
    architecture, changes = HEADS[task]
    model = build_encoder("bert", architecture, num_hidden_layers=1, **changes)
    batch = rows(model, type_ids=True)
    mask = batch["attention_mask"].bool()
    expected = reference(model, batch)
    session, _ = exported(model, tmp_path, task, type_ids=True)
    found = run(session, batch)
    for name, value in found.items():
        per_token = value.shape[:2] == mask.shape
        assert_close(value[mask] if per_token else value, expected[name][mask] if per_token else expected[name])
        for row in range(len(LENGTHS)):
            single = run(session, alone(batch, row))[name][0]
            assert_close(single, expected[name][row, : len(single)] if per_token else expected[name][row])


def test_a_head_that_is_no_embedding_is_picked_from(tmp_path):
    """Perceiver's words come from queries for all positions, through a head that transformers does not tell."""
    settings = {
        "num_latents": 7, "d_latents": 56, "d_model": 48, "num_blocks": 1, "num_self_attends_per_block": 2,
        "num_self_attention_heads": 4, "num_cross_attention_heads": 2, "qk_channels": 32, "v_channels": 56,
        "vocab_size": VOCAB, "max_position_embeddings": CONTEXT,
    }  # fmt: skip
    model = random_model("perceiver", settings, "PerceiverForMaskedLM")
    model.config.pad_token_id = 0
    batch = rows(model)
    expected = reference(model, batch).logits
    assert expected.shape[1] == CONTEXT
    session, _ = exported(model, tmp_path, "fill-mask")
    places = torch.tensor([[28, 3], [0, 0], [39, 11], [16, 2]])
    found = run(session, {**batch, "logits_positions": places})["logits"]
    assert_close(found, expected.gather(1, places[..., None].expand(-1, -1, VOCAB)))
    for row, length in enumerate(LENGTHS):
        single = run(session, {**alone(batch, row), "logits_positions": places[row : row + 1]})["logits"][0]
        assert_close(single, expected[row, places[row]])
        assert length > places[row].max()


ENCODER_DECODERS = {
    "BartForSequenceClassification": (
        "bart",
        {"vocab_size": VOCAB, "d_model": 48, "encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 3,
         "decoder_attention_heads": 4, "encoder_ffn_dim": 56, "decoder_ffn_dim": 72, "max_position_embeddings": CONTEXT,
         "num_labels": 5, "eos_token_id": 2, "pad_token_id": 1, "bos_token_id": 0},
    ),
    "T5ForSequenceClassification": (
        "t5",
        {"vocab_size": VOCAB, "d_model": 48, "d_kv": 16, "d_ff": 56, "num_layers": 2, "num_decoder_layers": 1,
         "num_heads": 5, "relative_attention_num_buckets": 10, "relative_attention_max_distance": 24, "num_labels": 5,
         "eos_token_id": 2, "pad_token_id": 0, "decoder_start_token_id": 0},
    ),
}  # fmt: skip


@pytest.mark.parametrize("architecture", ENCODER_DECODERS)
def test_classifiers_on_encoder_decoders_match_transformers(architecture, tmp_path):
    model_type, settings = ENCODER_DECODERS[architecture]
    model = random_model(model_type, settings, architecture)
    # As a pair of texts: an end after each, the second at another place in each row.
    batch = rows(model, (29, 4, 40, 17))
    for row, length in enumerate((29, 4, 40, 17)):
        batch["input_ids"][row, [1, length - 1]] = 2
    expected = reference(model, batch).logits
    session, counts = exported(model, tmp_path, "text-classification")
    assert_close(run(session, batch)["logits"], expected)
    for row in range(4):
        assert_close(run(session, alone(batch, row))["logits"], expected[row : row + 1])
    # Of two encoder layers, and self- and cross-attention of a decoder layer.
    assert counts["MultiHeadAttention"] == 4


@pytest.mark.parametrize("name", ["BartForSequenceClassification", "T5ForSequenceClassification"])
def test_answers_of_encoder_decoders_match_transformers(name, tmp_path):
    model_type, settings = ENCODER_DECODERS[name]
    settings = {key: value for key, value in settings.items() if key != "num_labels"}
    model = random_model(model_type, settings, name.replace("SequenceClassification", "QuestionAnswering"))
    batch = rows(model, (29, 4, 40, 17))
    mask = batch["attention_mask"].bool()
    expected = reference(model, batch)
    session, _ = exported(model, tmp_path, "question-answering")
    together = run(session, batch)
    for output in ("start_logits", "end_logits"):
        assert_close(together[output][mask], expected[output][mask])
        for row, length in enumerate((29, 4, 40, 17)):
            single = reference(model, alone(batch, row))[output]
            assert_close(run(session, alone(batch, row))[output], single)
            assert_close(together[output][row : row + 1, :length], single)


LONGFORMER = {
    "vocab_size": VOCAB, "hidden_size": 48, "intermediate_size": 56, "num_hidden_layers": 2, "num_attention_heads": 3,
    "max_position_embeddings": CONTEXT, "attention_window": [4, 8], "pad_token_id": 1, "bos_token_id": 0,
    "eos_token_id": 2, "num_labels": 5,
}  # fmt: skip


@pytest.mark.parametrize("task", ["text-classification", "feature-extraction"])
def test_windows_shorter_than_the_text_match_transformers(task, tmp_path):
    """The classifier's first token sees all others and is seen by them; without a head no token is."""
    classifies = task == "text-classification"
    model = random_model("longformer", LONGFORMER, "LongformerForSequenceClassification" if classifies else None)
    batch = rows(model)
    mask = batch["attention_mask"].bool()
    name = "logits" if classifies else "last_hidden_state"
    expected = reference(model, batch)[name]
    session, counts = exported(model, tmp_path, task)
    together = run(session, batch)[name]
    assert_close(*((together, expected) if classifies else (together[mask], expected[mask])))
    for row, length in enumerate(LENGTHS):
        single = run(session, alone(batch, row))[name][0]
        assert_close(single, expected[row] if classifies else expected[row, :length])
    assert counts["MultiHeadAttention"] == (4 if classifies else 2)


# The layers below a head are those of the family, which is compared above.
MASKED = {
    "bert": "BertForMaskedLM",
    "distilbert": "DistilBertForMaskedLM",
    "modernbert": "ModernBertForMaskedLM",
    "esm": "EsmForMaskedLM",
    "xlm": "XLMWithLMHeadModel",
}


@pytest.mark.parametrize("family", MASKED)
def test_masked_lm_gives_logits_at_positions(family, tmp_path):
    layers = "n_layers" if family in ("distilbert", "xlm") else "num_hidden_layers"
    check_logits_at_positions(build_encoder(family, MASKED[family], **{layers: 1}), tmp_path)


def test_logits_at_positions_of_a_head_that_is_not_called(tmp_path):
    """MobileBERT multiplies by the weights of its head."""
    sizes = {"hidden_size": 48, "embedding_size": 24, "intermediate_size": 80, "intra_bottleneck_size": 32}
    settings = {**sizes, "vocab_size": VOCAB, "num_attention_heads": 4, "num_hidden_layers": 1}
    check_logits_at_positions(random_model("mobilebert", settings, "MobileBertForMaskedLM"), tmp_path)


def check_logits_at_positions(model, tmp_path):
    batch = rows(model)
    expected = reference(model, batch).logits
    session, _ = exported(model, tmp_path, "fill-mask")
    positions = torch.tensor([[28, 0], [0, 0], [5, 39], [16, 3]])
    logits = run(session, {**batch, "logits_positions": positions})["logits"]
    assert_close(logits, torch.stack([row[picked] for row, picked in zip(expected, positions, strict=True)]))


@pytest.mark.parametrize("family", ["bert", "modernbert", "t5"])
def test_hidden_states_match_transformers(family, tmp_path):
    model = build_encoder(family)
    batch = rows(model)
    expected = reference(model, batch, output_hidden_states=True)
    session, _ = exported(model, tmp_path, hidden_states=True)
    found = run(session, batch)
    mask = batch["attention_mask"].bool()
    assert len(found) == 1 + len(expected.hidden_states) == 2 + LAYERS
    for index, state in enumerate(expected.hidden_states):
        assert_close(found[f"hidden_states.{index}"][mask], state[mask])


def test_the_model_is_left_without_hooks():
    model = build_encoder("bert", "BertForMaskedLM")
    task = text_task("fill-mask", ("input_ids", "attention_mask"), False)
    batch = {**rows(model), "logits_positions": torch.tensor([[0], [0], [5], [16]])}
    picked = reference_outputs(model, task, tuple(batch.values()))[0]
    _, prepared = encoder_spec(model, task, "encoder", CONTEXT)
    prepared.close()
    assert not model.get_output_embeddings()._forward_pre_hooks
    assert_close(reference_outputs(model, task, tuple(batch.values()))[0], picked)
