"""Graphs of decoders as other tools export them: with past keys and values, and longer ones as outputs."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
import transformers
from onnx import TensorProto, helper, numpy_helper
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb, repeat_kv

CONFIGS = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


class PastLlama(torch.nn.Module):
    """Llama written out, so that it can be traced with a past as an input; the layers are transformers' own.

    Args:
        folder: of the checkpoint.
        positions: whether position_ids are an input; the place in past and chunk counts otherwise.
        past: whether there is a past: without one, keys and values are those of the chunk.
        masked: whether a chunk's tokens are hidden from those before them.
    """

    def __init__(self, folder: Path, *, positions: bool = True, past: bool = True, masked: bool = True) -> None:
        super().__init__()
        self.llama = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.positions, self.past, self.masked = positions, past, masked

    @property
    def layers(self):
        return len(self.llama.model.layers)

    def forward(self, input_ids, attention_mask, *rest):
        first, *pasts = rest if self.positions else (None, *rest)
        batch, sequence = input_ids.shape
        before = pasts[0].shape[2] if self.past else 0
        places = torch.arange(sequence) + before
        states = self.llama.model.embed_tokens(input_ids)
        ids = first if self.positions else places[None]
        cosines, sines = self.llama.model.rotary_emb(states, ids)
        seen = attention_mask[:, None, None, :] > 0
        if self.masked:
            seen = seen & (torch.arange(attention_mask.shape[1])[None] <= places[:, None])
        presents = []
        for index, layer in enumerate(self.llama.model.layers):
            attention, normed = layer.self_attn, layer.input_layernorm(states)
            query, key, value = (
                projection(normed).view(batch, sequence, -1, attention.head_dim).transpose(1, 2)
                for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
            )
            query, key = apply_rotary_pos_emb(query, key, cosines, sines)
            if self.past:
                key = torch.cat([pasts[2 * index], key], 2)
                value = torch.cat([pasts[2 * index + 1], value], 2)
            presents += [key, value]
            keys, values = (repeat_kv(part, attention.num_key_value_groups) for part in (key, value))
            scores = query @ keys.transpose(2, 3) * attention.scaling
            weights = scores.masked_fill(~seen, torch.finfo(torch.float32).min).softmax(-1)
            states = states + attention.o_proj((weights @ values).transpose(1, 2).reshape(batch, sequence, -1))
            states = states + layer.mlp(layer.post_attention_layernorm(states))
        return self.llama.lm_head(self.llama.model.norm(states)), *presents


def traced(model: PastLlama, file: Path) -> onnx.ModelProto:
    """The graph of a model by torch's TorchScript exporter; names and axes are optimum's."""
    config = model.llama.config
    pasts = [f"past_key_values.{index}.{part}" for index in range(model.layers) for part in ("key", "value")]
    presents = [name.replace("past_key_values", "present") for name in pasts]
    names = ["input_ids", "attention_mask", *(["position_ids"] if model.positions else []), *pasts]
    batch, sequence, past = 2, 3, 5
    arrays = [
        torch.randint(1, config.vocab_size, (batch, sequence)),
        torch.ones(batch, past + sequence if model.past else sequence, dtype=torch.int64),
        *([torch.arange(past, past + sequence).repeat(batch, 1)] if model.positions else []),
        *(torch.randn(batch, config.num_key_value_heads, past, config.head_dim) for _ in pasts),
    ]
    total = "past_sequence_length + sequence_length"
    axes = {name: {0: "batch_size", 2: "past_sequence_length"} for name in pasts}
    axes |= {name: {0: "batch_size", 2: total} for name in presents}
    axes |= {name: {0: "batch_size", 1: "sequence_length"} for name in ("input_ids", "position_ids", "logits")}
    axes["attention_mask"] = {0: "batch_size", 1: total}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model, tuple(arrays), str(file), dynamo=False, opset_version=17,
            input_names=names, output_names=["logits", *presents], dynamic_axes=axes,
        )  # fmt: skip
    return onnx.load(file)


def configs_of(source: Path, folder: Path) -> Path:
    """A folder with a checkpoint's config and tokenizer, and no weights."""
    folder.mkdir(parents=True)
    for name in CONFIGS:
        shutil.copy(source / name, folder / name)
    return folder


def merged(with_past: onnx.ModelProto, without: onnx.ModelProto) -> onnx.ModelProto:
    """Two graphs behind one condition, as optimum merged decoders: the first where ``use_cache_branch`` is true."""
    branches = []
    for prefix, model in (("past_", with_past), ("first_", without)):
        graph = onnx.compose.add_prefix_graph(
            model.graph, prefix, rename_nodes=True, rename_edges=True, rename_inputs=False, rename_outputs=True,
            rename_initializers=True, rename_value_infos=True,
        )  # fmt: skip
        branches.append(helper.make_graph(graph.node, prefix, [], graph.output, graph.initializer))
    switch = helper.make_tensor_value_info("use_cache_branch", TensorProto.BOOL, [1])
    outputs = [value.name for value in with_past.graph.output]
    node = helper.make_node("If", ["use_cache_branch"], outputs, then_branch=branches[0], else_branch=branches[1])
    graph = helper.make_graph([node], "merged", [*with_past.graph.input, switch], with_past.graph.output)
    return helper.make_model(graph, opset_imports=with_past.opset_import, ir_version=with_past.ir_version)


class GroupedLayer:
    """One layer of attention with GroupQueryAttention and without anything else, as onnxruntime-genai builds layers.

    Attributes:
        heads: of queries.
        shared: of keys and values.
        width: of a head.
    """

    heads, shared, width = 4, 2, 16

    def __init__(self, vocab_size: int, hidden_size: int = 24) -> None:
        random = np.random.default_rng(0)
        sizes = {"embedding": (vocab_size, hidden_size), "head": (hidden_size, vocab_size)}
        sizes |= {"q": (hidden_size, self.heads * self.width), "o": (self.heads * self.width, hidden_size)}
        sizes |= {name: (hidden_size, self.shared * self.width) for name in ("k", "v")}
        self.weights = {name: random.standard_normal(size).astype(np.float32) * 0.5 for name, size in sizes.items()}

    def graph(self) -> onnx.ModelProto:
        """The graph, whose names are not the usual ones."""
        node, tensor = helper.make_node, helper.make_tensor_value_info
        cache = {name: ["batch", self.shared, axis, self.width] for name, axis in (("old", "past"), ("new", "total"))}
        nodes = [
            node("Gather", ["embedding", "tokens"], ["states"]),
            *(node("MatMul", ["states", name], [f"{name}_states"]) for name in ("q", "k", "v")),
            node("ReduceSum", ["mask", "one"], ["counts"], keepdims=0),
            node("Sub", ["counts", "unit"], ["ends"]),
            node("Cast", ["ends"], ["seqlens_k"], to=TensorProto.INT32),
            node("Shape", ["mask"], ["sizes"]),
            node("Gather", ["sizes", "unit"], ["total"], axis=0),
            node("Cast", ["total"], ["total_length"], to=TensorProto.INT32),
            node(
                "GroupQueryAttention",
                ["q_states", "k_states", "v_states", "old_k_0", "old_v_0", "seqlens_k", "total_length"],
                ["attended", "new_k_0", "new_v_0"],
                domain="com.microsoft",
                num_heads=self.heads,
                kv_num_heads=self.shared,
            ),
            node("MatMul", ["attended", "o"], ["mixed"]),
            node("Add", ["states", "mixed"], ["sum"]),
            node("MatMul", ["sum", "head"], ["scores"]),
        ]
        constants = {**self.weights, "one": np.array([1], np.int64), "unit": np.array(1, np.int64)}
        parts = ("k", "v")
        vocab_size = self.weights["head"].shape[1]
        graph = helper.make_graph(
            nodes,
            "grouped",
            [
                tensor("tokens", TensorProto.INT64, ["batch", "sequence"]),
                tensor("mask", TensorProto.INT64, ["batch", "total"]),
                *(tensor(f"old_{part}_0", TensorProto.FLOAT, cache["old"]) for part in parts),
            ],
            [
                tensor("scores", TensorProto.FLOAT, ["batch", "sequence", vocab_size]),
                *(tensor(f"new_{part}_0", TensorProto.FLOAT, cache["new"]) for part in parts),
            ],
            [numpy_helper.from_array(array, name) for name, array in constants.items()],
        )
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)

    def genai_config(self, context_length: int, **model: object) -> dict[str, object]:
        """What genai_config.json says of it."""
        decoder = {
            "filename": "grouped.onnx",
            "head_size": self.width,
            "inputs": {
                "input_ids": "tokens",
                "attention_mask": "mask",
                "past_key_names": "old_k_%d",
                "past_value_names": "old_v_%d",
            },
            "outputs": {"logits": "scores", "present_key_names": "new_k_%d", "present_value_names": "new_v_%d"},
        }
        described = {"type": "grouped", "context_length": context_length, "bos_token_id": 1, "eos_token_id": [2, 7]}
        search = {"do_sample": False, "top_k": 50, "max_length": 11}
        return {"model": {**described, "decoder": decoder, **model}, "search": search}

    def logits(self, ids: list[int]) -> np.ndarray:
        """What PyTorch's attention gives, float32 (len(ids), vocab_size)."""
        weights = {name: torch.from_numpy(array) for name, array in self.weights.items()}
        states = weights["embedding"][torch.tensor(ids)]
        query, key, value = (
            (states @ weights[name]).view(1, len(ids), -1, self.width).transpose(1, 2) for name in ("q", "k", "v")
        )
        groups = self.heads // self.shared
        mixed = torch.nn.functional.scaled_dot_product_attention(
            query, repeat_kv(key, groups), repeat_kv(value, groups), is_causal=True
        )
        states = states + mixed.transpose(1, 2).reshape(len(ids), -1) @ weights["o"]
        return (states @ weights["head"]).numpy()
