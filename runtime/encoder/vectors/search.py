"""Finds the documents nearest to queries by exact cosine, in a stream of documents or in an index."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from triform.runtime.arithmetic import Array, units
from triform.runtime.encoder.inputs import check_whole
from triform.runtime.encoder.vectors.embedding import (
    default_document_prompt,
    default_query_prompt,
    embed,
    embedding_info,
)
from triform.runtime.encoder.vectors.search_index import Document, Hit, SearchIndex, embedded, top_indices

if TYPE_CHECKING:
    from triform.runtime.encoder.opened import OpenEncoder

# Queries to search for in an index at a time, and documents to hold at a time.
_QUERIES, _DOCUMENTS = 256, 256


def search(
    model: OpenEncoder,
    queries: Iterable[str],
    documents: Iterable[Document] | SearchIndex,
    *,
    top_k: int = 10,
    query_prompt: str | None = None,
    document_prompt: str | None = None,
) -> Iterator[list[Hit]]:
    """Find the documents nearest to each query, lazily, in the order of the queries.

    In an index, a few queries are searched for at a time. A stream of documents is read once, after all queries.

    Args:
        model: computes the vectors.
        queries: any number of texts.
        documents: any number of documents, or an index that was made with `model`.
        top_k: the most documents to return for each query.
        query_prompt: put before each query; when None the model's prompt called ``query``, if it has one.
        document_prompt: put before each document; when None the model's prompt called ``document``, ``passage`` or
            ``corpus``, if it has one. An index keeps the prompt that it was made with.

    Returns:
        for each query its documents, the nearest first, equally near ones in their order.

    Raises:
        UnsupportedError: the model does not compute vectors of texts. The call itself raises it, and errors of options.
        InputError: `top_k` is less than 1; or the index was made with another bundle or prompt, or is damaged; or a
            text is not valid Unicode, or too long for a strict model.
        TriformError: onnxruntime failed.
    """
    check_whole("top_k", top_k, 1)
    info = embedding_info(model)
    vectors = embed(model, queries, prompt=default_query_prompt(info) if query_prompt is None else query_prompt)
    if isinstance(documents, SearchIndex):
        documents.check(model, document_prompt)
        return _searched(documents, vectors, top_k)
    before = default_document_prompt(info) if document_prompt is None else document_prompt
    return _compared(model, vectors, documents, before, top_k)


def _searched(index: SearchIndex, vectors: Iterator[Array], top_k: int) -> Iterator[list[Hit]]:
    while group := list(islice(vectors, _QUERIES)):
        yield from index.search(units(group), top_k)


def _compared(
    model: OpenEncoder, vectors: Iterator[Array], documents: Iterable[Document], prompt: str, top_k: int
) -> Iterator[list[Hit]]:
    if all_vectors := list(vectors):
        yield from nearest(model, units(all_vectors), documents, prompt=prompt, top_k=top_k)


def nearest(
    model: OpenEncoder, queries: Array, documents: Iterable[Document], *, prompt: str, top_k: int
) -> list[list[Hit]]:
    """Find the documents nearest to each query in one pass: the nearest first, equally near ones in their order.

    Args:
        model: computes the vectors.
        queries: vectors (queries, dimension) of length 1.
        documents: any number of documents.
        prompt: put before each document.
        top_k: the most documents to return for each query.

    Raises:
        TriformError: see `embed`.
    """
    best: list[list[Hit]] = [[] for _ in queries]
    source = embedded(model, documents, prompt)
    while block := list(islice(source, _DOCUMENTS)):
        scores = queries @ np.stack([vector for vector, _ in block]).T
        for index, row in enumerate(scores):
            hits = [Hit(float(row[place]), block[place][1]) for place in top_indices(row, top_k)]
            best[index] = sorted([*best[index], *hits], key=lambda hit: -hit.score)[:top_k]
    return best
