"""Static embeddings: one vector per token, and a text is the mean of its tokens' vectors.

Word2Vec, GloVe and model2vec are of this kind.
"""

from __future__ import annotations

import torch
from transformers import PretrainedConfig

from triform.models.encoder.pooling import sentence_embedding
from triform.models.spec import GraphInput, GraphSpec


class StaticConfig(PretrainedConfig):
    """Takes the place of a transformers config; it is empty."""

    model_type = "static"


class StaticEncoder(torch.nn.Module):
    """The module that is traced: from token ids to one vector per text."""

    def __init__(self, table: torch.Tensor, dimension: int, unknown: int | None, normalize: bool) -> None:
        """Take a table of vectors.

        Args:
            table: float32 (vocab_size, width); columns beyond `dimension` are zero.
            dimension: of the resulting vectors.
            unknown: the id of tokens without a vector, which are left out of the mean.
            normalize: whether vectors are scaled to length 1.
        """
        super().__init__()
        self.table = torch.nn.Parameter(table, requires_grad=False)
        self._dimension = dimension
        self._unknown = unknown
        self._normalize = normalize

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Compute the mean of each row's vectors.

        Args:
            input_ids: int64 (batch, sequence).
            attention_mask: int64 (batch, sequence), 1 at tokens and 0 at padding.

        Returns:
            float32 (batch, dimension); zeros for a text without a known token.
        """
        vectors = torch.nn.functional.embedding(input_ids, self.table)
        known = attention_mask if self._unknown is None else attention_mask * (input_ids != self._unknown).long()
        # Trimmed after the mean, because a quantized table is read in whole blocks.
        mean = sentence_embedding(vectors, known, ("mean",), (), False)[:, : self._dimension]
        return torch.nn.functional.normalize(mean, p=2.0, dim=-1) if self._normalize else mean


def static_spec(encoder: StaticEncoder, max_length: int) -> GraphSpec:
    """The graph to trace."""
    axes = ((0, "batch"), (1, "sequence"))
    examples = torch.zeros(2, 5, dtype=torch.int64), torch.ones(2, 5, dtype=torch.int64)
    inputs = tuple(
        GraphInput(name, example, axes) for name, example in zip(("input_ids", "attention_mask"), examples, strict=True)
    )
    return GraphSpec("encoder", encoder, inputs, ("sentence_embedding",), (), max_length)
