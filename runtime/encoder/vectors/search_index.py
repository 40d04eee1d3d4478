"""Keeps the vectors of texts in a folder, and finds the texts nearest to a query by exact cosine.

The folder holds ``vectors.npy`` (float32, rows of length 1, mapped into memory), ``texts.jsonl`` (the texts),
``offsets.bin`` (the end of each of its lines, int64) and ``index.json`` (`IndexInfo`, and its own hash).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import tee
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from triform.runtime.arithmetic import Array, unit
from triform.runtime.bundle.manifest import FileInfo
from triform.runtime.bundle.outside import check_outside_bundles
from triform.runtime.checked_json import Mismatch, build, is_whole, sealed
from triform.runtime.encoder.vectors.embedding import default_document_prompt, embed, embedding_info
from triform.runtime.errors import InputError, pass_on
from triform.runtime.files import whole_folder, write_npy
from triform.runtime.printable import shortened
from triform.runtime.text.pages import Page
from triform.runtime.verified_files import Verify, check_verify, is_whole_file

if TYPE_CHECKING:
    from triform.runtime.encoder.opened import OpenEncoder

# Version 2 added the hashes.
_VERSION = 2
_INFO, _VECTORS, _TEXTS, _OFFSETS = "index.json", "vectors.npy", "texts.jsonl", "offsets.bin"
# The key of index.json's own hash.
_CHECKSUM = "index_sha256"
# Vectors compared at a time.
_BLOCK = 16384
# The field of a JSON object that holds the text, unless another is named.
DEFAULT_FIELD = "text"


@dataclass(frozen=True)
class Document:
    """A text to search.

    Attributes:
        number: its line in the file that it comes from, or its position in a list, from 1 on.
        text: the text.
        value: the JSON object that the text is part of; None for plain text.
    """

    number: int
    text: str
    value: dict[str, Any] | None = None


def as_documents(texts: Iterable[str]) -> Iterator[Document]:
    """Yield texts as documents, numbered from 1.

    Raises:
        InputError: while iterating, one is a page.
    """
    for number, text in enumerate(texts, 1):
        if isinstance(text, Page):
            raise InputError("pages cannot be searched: embed them, and compare their vectors")
        yield Document(number, text)


@dataclass(frozen=True)
class Hit:
    """A document that a search returns, and its cosine with the query as `score`."""

    score: float
    document: Document


@dataclass(frozen=True)
class IndexInfo:
    """How an index was made.

    Attributes:
        version: of the folder's format.
        bundle: `fingerprint` of the bundle that computed the vectors.
        source: size and SHA-256 of the file of texts; None for texts that did not come from a file.
        field: the field of its JSON objects that holds the text; None for plain text.
        prompt: put before each text.
        count: number of texts.
        dimension: of the vectors.
        files: size and SHA-256 of the other files in the folder, by name.
    """

    version: int
    bundle: str
    source: FileInfo | None
    field: str | None
    prompt: str
    count: int
    dimension: int
    files: dict[str, FileInfo]


def fingerprint(model: OpenEncoder) -> str:
    """Return a hash of everything in a bundle that its vectors depend on."""
    files = sorted((name, info.sha256) for name, info in model.manifest.files.items())
    return hashlib.sha256(json.dumps([files, model.manifest.max_length]).encode()).hexdigest()


def describe_file(path: Path) -> FileInfo:
    """Return the size and the SHA-256 of a file.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return FileInfo(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None


def build_index(
    folder: Path,
    model: OpenEncoder,
    documents: Iterable[Document],
    *,
    prompt: str | None = None,
    field: str | None = None,
    source: FileInfo | None = None,
) -> None:
    """Save documents and their vectors in a new folder, which appears whole or not at all, in bounded memory.

    Args:
        folder: the folder to create.
        model: computes the vectors.
        documents: at least one.
        prompt: put before each text; when None the model's prompt for documents, see `search`.
        field: the field of their JSON objects that holds the text; None for plain text.
        source: the file that they come from, if any.

    Raises:
        InputError: the folder cannot be created, or there are no documents.
        TriformError: see `embed`.
    """
    check_outside_bundles(folder)
    embedding = embedding_info(model)
    before = default_document_prompt(embedding) if prompt is None else prompt
    with whole_folder(folder) as staging:
        with (staging / _TEXTS).open("wb") as texts, (staging / _OFFSETS).open("wb") as offsets:
            kept = _keep_texts(embedded(model, documents, before), texts, offsets)
            with (staging / _VECTORS).open("wb") as vectors:
                count = write_npy(vectors, kept, embedding.dimension, "float32")
        if not count:
            raise InputError("there are no texts to search")
        files = {name: describe_file(staging / name) for name in (_VECTORS, _TEXTS, _OFFSETS)}
        info = IndexInfo(_VERSION, fingerprint(model), source, field, before, count, embedding.dimension, files)
        (staging / _INFO).write_text(sealed(dataclasses.asdict(info), _CHECKSUM), encoding="utf-8")


class SearchIndex:
    """A folder that `build_index` made. Its vectors stay on disk until they are compared.

    Attributes:
        info: how it was made.
    """

    def __init__(self, folder: Path, verify: Verify = "once") -> None:
        """Open a folder.

        Args:
            folder: a folder that `build_index` made.
            verify: whether its files are hashed always, once until they change, or never.

        Raises:
            InputError: the folder is not an index, or is damaged.
        """
        check_verify(verify)
        self._folder = folder
        try:
            self.info = _read_info(folder)
            self._check_files(verify)
            self._vectors: Array = np.load(folder / _VECTORS, mmap_mode="r")
            self._ends = np.memmap(folder / _OFFSETS, "<i8", "r")
        except InputError:
            raise
        except Exception as error:  # numpy's reader of headers raises anything from tokenize's errors to OverflowError
            pass_on(error)
            reason = shortened(getattr(error, "strerror", None) or str(error))
            raise InputError(f"{folder} is not a search index ({reason}); delete it to rebuild it") from None
        shape = (self.info.count, self.info.dimension)
        if self._vectors.shape != shape or self._vectors.dtype != np.float32 or self._ends.shape != shape[:1]:
            raise self._damaged()
        lines = np.diff(self._ends, prepend=0)
        if lines.min() < 1 or self._ends[-1] != self.info.files[_TEXTS].size:
            raise self._damaged()

    def check(self, model: OpenEncoder, prompt: str | None) -> None:
        """Check that the index was made with `model`, and with `prompt` unless that is None.

        Raises:
            InputError: it was made with another bundle or prompt.
        """
        if self.info.bundle != fingerprint(model):
            raise InputError(f"{self._folder} was made with another bundle; delete it to rebuild it")
        if prompt is not None and prompt != self.info.prompt:
            raise InputError(f"{self._folder} was made with the prompt {self.info.prompt!r}, not {prompt!r}")

    def check_source(self, path: Path, field: str | None) -> None:
        """Check that the index was made from this file, and that the file has not changed since.

        Raises:
            InputError: the file is another one or has changed, or its texts are in another field.
        """
        if self.info.field != field:
            raise InputError(f"{self._folder} was made of another field; delete it to rebuild it")
        if self.info.source != describe_file(path):
            raise InputError(f"{path} is not what {self._folder} was made of; delete the folder to rebuild it")

    def search(self, queries: Array, top_k: int) -> list[list[Hit]]:
        """Find the documents nearest to each query: the nearest first, equally near ones in their order.

        Args:
            queries: vectors (queries, dimension) of length 1.
            top_k: the most documents to return for each query.

        Raises:
            InputError: the index is damaged.
        """
        best: list[list[tuple[float, int]]] = [[] for _ in queries]
        for start in range(0, self.info.count, _BLOCK):
            # Vectors that are not finite are refused below, with an error instead of numpy's warning.
            with np.errstate(invalid="ignore", over="ignore"):
                scores = queries @ self._vectors[start : start + _BLOCK].T
            if not np.isfinite(scores).all():
                raise self._damaged()
            for index, row in enumerate(scores):
                nearest = [(float(row[place]), start + int(place)) for place in top_indices(row, top_k)]
                best[index] = sorted([*best[index], *nearest], key=lambda pair: -pair[0])[:top_k]
        with (self._folder / _TEXTS).open("rb") as texts:
            return [[Hit(score, self._document(texts, place)) for score, place in pairs] for pairs in best]

    def _document(self, texts: BinaryIO, place: int) -> Document:
        begin, end = int(self._ends[place - 1]) if place else 0, int(self._ends[place])
        if not 0 <= begin <= end <= os.fstat(texts.fileno()).st_size:
            raise self._damaged()
        texts.seek(begin)
        try:
            number, value = json.loads(texts.read(end - begin))
            if isinstance(value, str):
                return Document(number, value)
            return Document(number, value[self.info.field or DEFAULT_FIELD], value)
        except (ValueError, TypeError, KeyError, RecursionError):
            raise self._damaged() from None

    def _check_files(self, verify: Verify) -> None:
        for name, info in self.info.files.items():
            path = self._folder / name
            whole = path.stat().st_size == info.size
            if verify != "never":
                whole = whole and is_whole_file(path, info.sha256, once=verify == "once")
            if not whole:
                raise self._damaged()

    def _damaged(self) -> InputError:
        return InputError(f"{self._folder} is damaged; delete it to rebuild it")


def _read_info(folder: Path) -> IndexInfo:
    data = (folder / _INFO).read_bytes()
    content = json.loads(data.decode("utf-8"))
    if not isinstance(content, dict) or content.get("version") != _VERSION:
        raise Mismatch("made by another version")
    if not is_whole(data, str(content.get(_CHECKSUM))):
        raise Mismatch(f"{_INFO} is damaged")
    info: IndexInfo = build(IndexInfo, content)
    if not (1 <= info.count and 1 <= info.dimension and set(info.files) == {_VECTORS, _TEXTS, _OFFSETS}):
        raise Mismatch(f"{_INFO} is damaged")
    return info


def top_indices(scores: Array, count: int) -> NDArray[np.int64]:
    """Find the largest scores.

    Args:
        scores: float32 (any number).
        count: the most indices to return.

    Returns:
        their indices, the largest score first, equal ones in their order: int64 (at most `count`).
    """
    places = np.arange(len(scores))
    if len(scores) > count:
        least = np.partition(scores, len(scores) - count)[len(scores) - count]
        places = np.flatnonzero(scores >= least)
    return places[np.argsort(-scores[places], kind="stable")[:count]]


def _keep_texts(pairs: Iterable[tuple[Array, Document]], texts: BinaryIO, offsets: BinaryIO) -> Iterator[Array]:
    """Write the documents one by one, and yield their vectors."""
    for vector, document in pairs:
        texts.write(json.dumps([document.number, document.value or document.text]).encode() + b"\n")
        offsets.write(np.array(texts.tell(), "<i8").tobytes())
        yield vector


def embedded(model: OpenEncoder, documents: Iterable[Document], prompt: str) -> Iterator[tuple[Array, Document]]:
    """Yield the vector of each document, float32 (dimension,) of length 1, with the document; in bounded memory."""
    first, second = tee(documents)
    vectors = embed(model, (document.text for document in first), prompt=prompt)
    return zip((unit(vector) for vector in vectors), second, strict=True)
