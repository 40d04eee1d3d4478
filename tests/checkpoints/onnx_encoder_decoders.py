"""Graphs of encoder-decoders as other tools export them: an encoder, a decoder that begins, and one that continues."""

from __future__ import annotations

import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
import transformers
from onnx import TensorProto, helper, numpy_helper

PARTS = ("key", "value")
WEIGHTS = ("model.safetensors",)


class Written(torch.nn.Module):
    """BART or Whisper written out, so that it can be traced; the layers are transformers' own.

    Args:
        folder: of the checkpoint.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        config = transformers.AutoConfig.from_pretrained(folder)
        self.hears = config.model_type == "whisper"
        auto = transformers.AutoModelForSpeechSeq2Seq if self.hears else transformers.AutoModelForSeq2SeqLM
        self.whole = auto.from_pretrained(folder, dtype=torch.float32).eval()
        self.config = config
        self.encoder, self.decoder = self.whole.model.encoder, self.whole.model.decoder

    def heads(self, attention, states, batch):
        return states.view(batch, -1, attention.num_heads, attention.head_dim).transpose(1, 2)

    def attend(self, attention, states, key, value, hidden):
        """`hidden` is added to the scores: (batch or 1, 1, queries or 1, keys), or None."""
        batch, count, width = states.shape
        query = self.heads(attention, attention.q_proj(states) * attention.scaling, batch)
        scores = query @ key.transpose(2, 3)
        weights = (scores if hidden is None else scores + hidden).softmax(-1)
        return attention.out_proj((weights @ value).transpose(1, 2).reshape(batch, count, width))

    def around(self, norm, states, inner):
        """A norm before, as in Whisper, or behind, as in BART."""
        return states + inner(norm(states)) if self.hears else norm(states + inner(states))

    def feed(self, layer, states):
        return layer.fc2(layer.activation_fn(layer.fc1(states)))


def hidden_at(mask):
    """What hides the places of a mask where it is 0."""
    return (1 - mask.to(torch.float32)) * torch.finfo(torch.float32).min


class WrittenEncoder(Written):
    """From a source to its last states."""

    def forward(self, source, mask=None):
        encoder = self.encoder
        if self.hears:
            states = torch.nn.functional.gelu(encoder.conv1(source))
            states = torch.nn.functional.gelu(encoder.conv2(states)).transpose(1, 2) + encoder.embed_positions.weight
            hidden = None
        else:
            places = torch.arange(source.shape[1]) + 2
            states = encoder.embed_tokens(source) + encoder.embed_positions.weight[places]
            states, hidden = encoder.layernorm_embedding(states), hidden_at(mask[:, None, None, :])
        for layer in encoder.layers:
            attention, batch = layer.self_attn, source.shape[0]

            def own(inner, attention=attention, batch=batch, hidden=hidden):
                key, value = (
                    self.heads(attention, part(inner), batch) for part in (attention.k_proj, attention.v_proj)
                )
                return self.attend(attention, inner, key, value, hidden)

            states = self.around(layer.self_attn_layer_norm, states, own)
            states = self.around(layer.final_layer_norm, states, lambda inner, layer=layer: self.feed(layer, inner))
        return encoder.layer_norm(states) if self.hears else states


class WrittenDecoder(Written):
    """From tokens, and an encoder's states or what was made of them, to logits and keys and values.

    Args:
        folder: of the checkpoint.
        past: whether there are tokens before.
        masked: whether a chunk's tokens are hidden from those before them.
    """

    def __init__(self, folder: Path, *, past: bool, masked: bool = True) -> None:
        super().__init__(folder)
        self.past, self.masked = past, masked

    def forward(self, input_ids, *rest):
        decoder, config, rest = self.decoder, self.config, list(rest)
        mask = None if self.hears else hidden_at(rest.pop(0)[:, None, None, :])
        source = None if self.past else rest.pop(0)
        batch, count = input_ids.shape
        before = rest[0].shape[2] if self.past else 0
        places = torch.arange(count) + before
        table, offset = decoder.embed_positions.weight, 0 if self.hears else 2
        states = decoder.embed_tokens(input_ids) + table[places + offset]
        if not self.hears:
            states = decoder.layernorm_embedding(states)
        later = hidden_at(torch.arange(count + before)[None] <= places[:, None])[None, None] if self.masked else None
        presents = []
        for index, layer in enumerate(decoder.layers):
            given = rest[4 * index : 4 * index + 4]

            def own(inner, layer=layer, given=given):
                attention = layer.self_attn
                key, value = (
                    self.heads(attention, part(inner), batch) for part in (attention.k_proj, attention.v_proj)
                )
                if self.past:
                    key, value = torch.cat([given[0], key], 2), torch.cat([given[1], value], 2)
                presents.extend([key, value])
                return self.attend(attention, inner, key, value, later)

            def cross(inner, layer=layer, given=given):
                attention = layer.encoder_attn
                if self.past:
                    return self.attend(attention, inner, *given[2:], mask)
                # As transformers does, with the batch of the decoder's own states.
                rows = inner.shape[0]
                key, value = (
                    self.heads(attention, part(source), rows) for part in (attention.k_proj, attention.v_proj)
                )
                presents.extend([key, value])
                return self.attend(attention, inner, key, value, mask)

            states = self.around(layer.self_attn_layer_norm, states, own)
            states = self.around(layer.encoder_attn_layer_norm, states, cross)
            states = self.around(layer.final_layer_norm, states, lambda inner, layer=layer: self.feed(layer, inner))
        if self.hears:
            return self.whole.proj_out(decoder.layer_norm(states)), *presents
        assert config.vocab_size == self.whole.lm_head.out_features
        return self.whole.lm_head(states) + self.whole.final_logits_bias, *presents


@dataclass(frozen=True)
class Graphs:
    """The three graphs."""

    encoder: onnx.ModelProto
    first: onnx.ModelProto
    past: onnx.ModelProto

    def save(self, folder: Path, suffix: str = "") -> Path:
        """As optimum names them."""
        folder.mkdir(parents=True, exist_ok=True)
        onnx.save(self.encoder, folder / f"encoder_model{suffix}.onnx")
        onnx.save(self.first, folder / f"decoder_model{suffix}.onnx")
        onnx.save(self.past, folder / f"decoder_with_past_model{suffix}.onnx")
        return folder

    def save_merged(self, folder: Path, suffix: str = "") -> Path:
        """As transformers.js names them."""
        folder.mkdir(parents=True, exist_ok=True)
        onnx.save(self.encoder, folder / f"encoder_model{suffix}.onnx")
        onnx.save(merged(self.first, self.past), folder / f"decoder_model_merged{suffix}.onnx")
        return folder


def bare(source: Path, folder: Path) -> Path:
    """A folder with all files of a checkpoint but its weights."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns(*WEIGHTS))
    return folder


def traced(source: Path, folder: Path, *, masked: bool = True) -> Graphs:
    """The graphs of a checkpoint by torch's TorchScript exporter; names and axes are optimum's."""
    folder.mkdir(parents=True, exist_ok=True)
    encoder = WrittenEncoder(source)
    config, hears, layers = encoder.config, encoder.hears, len(encoder.decoder.layers)
    batch, count, before, length = 2, 3, 5, 7
    heads, width = config.decoder_attention_heads, config.d_model // config.decoder_attention_heads
    if hears:
        frames = 2 * config.max_source_positions
        read = {"input_features": (torch.randn(batch, config.num_mel_bins, frames), {0: "batch_size"})}
        length, mask = config.max_source_positions, {}
    else:
        axes = {0: "batch_size", 1: "encoder_sequence_length"}
        ones = torch.ones(batch, length, dtype=torch.int64)
        read = {
            "input_ids": (torch.randint(4, config.vocab_size, (batch, length)), axes),
            "attention_mask": (ones, axes),
        }
        mask = {"encoder_attention_mask": (ones, axes)}
    tokens = {
        "input_ids": (
            torch.randint(4, config.vocab_size, (batch, count)),
            {0: "batch_size", 1: "decoder_sequence_length"},
        )
    }
    source_axes = {0: "batch_size", 1: "encoder_sequence_length"}
    states = {"encoder_hidden_states": (torch.randn(batch, length, config.d_model), source_axes)}
    total = "past_decoder_sequence_length + decoder_sequence_length"
    pasts, presents = {}, {}
    for index in range(layers):
        for side, size, axis in (
            ("decoder", before, "past_decoder_sequence_length"),
            ("encoder", length, "encoder_sequence_length"),
        ):
            for part in PARTS:
                name = f"{index}.{side}.{part}"
                pasts[f"past_key_values.{name}"] = (torch.randn(batch, heads, size, width), {0: "batch_size", 2: axis})
                presents[f"present.{name}"] = {0: "batch_size", 2: total if side == "decoder" else axis}
    logits = {"logits": {0: "batch_size", 1: "decoder_sequence_length"}}
    continued = {name: axes for name, axes in presents.items() if ".decoder." in name}
    first, past = WrittenDecoder(source, past=False), WrittenDecoder(source, past=True, masked=masked)
    return Graphs(
        _trace(
            encoder,
            folder / "encoder.onnx",
            read,
            {"last_hidden_state": {0: "batch_size", 1: "encoder_sequence_length"}},
        ),
        _trace(first, folder / "first.onnx", {**tokens, **mask, **states}, {**logits, **presents}),
        _trace(past, folder / "past.onnx", {**tokens, **mask, **pasts}, {**logits, **continued}),
    )


def _trace(model, file, inputs, outputs):
    arrays = tuple(array for array, _ in inputs.values())
    axes = {name: axes for name, (_, axes) in inputs.items()} | outputs
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model, arrays, str(file), dynamo=False, opset_version=17,
            input_names=list(inputs), output_names=list(outputs), dynamic_axes=axes,
        )  # fmt: skip
    graph = onnx.load(file)
    for value in graph.graph.output:
        if value.name.startswith("present."):
            # As optimum writes them.
            index, side, part = value.name.split(".")[1:]
            [shape] = [
                array.shape for name, (array, _) in inputs.items() if name.endswith(f"{index}.{side}.{part}")
            ] or [
                (
                    0,
                    model.config.decoder_attention_heads,
                    0,
                    model.config.d_model // model.config.decoder_attention_heads,
                )
            ]
            for axis in (1, 3):
                value.type.tensor_type.shape.dim[axis].dim_value = shape[axis]
    return graph


def merged(first: onnx.ModelProto, past: onnx.ModelProto) -> onnx.ModelProto:
    """Both decoders behind one condition, as optimum merges them: with a past, those of the source are given empty."""
    branches = []
    outputs = list(first.graph.output)
    for prefix, model in (("past_", past), ("first_", first)):
        graph = onnx.compose.add_prefix_graph(
            model.graph, prefix, rename_nodes=True, rename_edges=True, rename_inputs=False, rename_outputs=False,
            rename_initializers=True, rename_value_infos=True,
        )  # fmt: skip
        given = {value.name for value in graph.output}
        nodes = list(graph.node)
        for value in outputs:
            if value.name not in given:
                empty = numpy_helper.from_array(np.zeros((0, 2, 1, 24), np.float32))
                nodes.append(helper.make_node("Constant", [], [value.name], value=empty))
        branches.append(helper.make_graph(nodes, prefix, [], outputs, graph.initializer))
    switch = helper.make_tensor_value_info("use_cache_branch", TensorProto.BOOL, [1])
    names = [value.name for value in outputs]
    node = helper.make_node("If", ["use_cache_branch"], names, then_branch=branches[0], else_branch=branches[1])
    taken = {value.name: value for value in [*first.graph.input, *past.graph.input]}
    graph = helper.make_graph([node], "merged", [*taken.values(), switch], outputs)
    return helper.make_model(graph, opset_imports=first.opset_import, ir_version=first.ir_version)
