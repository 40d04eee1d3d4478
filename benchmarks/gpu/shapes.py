"""The two models that peers run with random weights: what counts for speed is their shape."""

from __future__ import annotations

from typing import TYPE_CHECKING

# Imported where it is used: a process that only needs the numbers starts seconds sooner.
if TYPE_CHECKING:
    from transformers import BertConfig, LlamaConfig

PROMPT_TOKENS, NEW_TOKENS, BATCHES = 512, 128, (1, 32)


def smollm2_135m() -> LlamaConfig:
    """The shape of SmolLM2-135M."""
    from transformers import LlamaConfig

    return LlamaConfig(
        num_hidden_layers=30,
        hidden_size=576,
        intermediate_size=1536,
        num_attention_heads=9,
        num_key_value_heads=3,
        head_dim=64,
        vocab_size=49152,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        architectures=["LlamaForCausalLM"],
    )


def minilm_l6() -> BertConfig:
    """The shape of all-MiniLM-L6-v2."""
    from transformers import BertConfig

    return BertConfig(
        num_hidden_layers=6, hidden_size=384, intermediate_size=1536, num_attention_heads=12, vocab_size=30522
    )
