"""Sentence embeddings written out: transformers runs the checkpoint, one text at a time, without padding."""

from __future__ import annotations

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

MAX_LENGTH = 40
TEXTS = [
    "The ferry left the harbor before dawn.",
    "-",
    "Rain.",
    "A much longer passage " + "about ropes and sails and the men who knew them " * 20,
    "Straße, 東京, naïve; tabs\tand  spaces",
    "Nobody in the village had seen a winter like that one.",
]


def token_vectors(source, texts):
    """One (tokens, hidden_size) tensor a text."""
    tokenizer, model = AutoTokenizer.from_pretrained(source), AutoModel.from_pretrained(source).eval()
    found = []
    for text in texts:
        inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=MAX_LENGTH)
        with torch.no_grad():
            found.append(model(**inputs).last_hidden_state[0])
    return found


def mean_vectors(source, texts):
    """What the folder of the fixture `sentence_source` stands for: (texts, hidden_size), of length 1."""
    vectors = torch.stack([states.mean(0) for states in token_vectors(source, texts)])
    return np.asarray(vectors / vectors.norm(dim=1, keepdim=True))
