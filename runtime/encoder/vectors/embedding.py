"""Computes the vectors of texts: sentence embeddings, with their prompts and number of dimensions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from triform.runtime.arithmetic import Array, check_numbers, cosines, unit
from triform.runtime.bundle.manifest import EmbeddingInfo
from triform.runtime.encoder.inputs import check_whole
from triform.runtime.encoder.vectors.ahead import ahead
from triform.runtime.errors import InputError, UnsupportedError, option
from triform.runtime.printable import quoted
from triform.runtime.text.pages import Page, Text, text_of
from triform.runtime.text.rows import TokenBatch

if TYPE_CHECKING:
    from triform.runtime.encoder.opened import OpenEncoder

# Characters to tokenize at a time: long texts must not fill the memory.
_CHUNK_CHARACTERS = 2**20
# Tasks of models that compute vectors of texts, also to compare them with images.
_TASKS = ("feature-extraction", "zero-shot-image-classification")
# Names that models use for the prompts of queries and documents, the preferred name first.
_QUERY_PROMPTS, _DOCUMENT_PROMPTS = ("query",), ("document", "passage", "corpus")


def embed(
    model: OpenEncoder,
    texts: Iterable[Text],
    *,
    prompt: str | None = None,
    prompt_name: str | None = None,
    dimensions: int | None = None,
) -> Iterator[Array]:
    """Compute one vector for each text, lazily, in order, in bounded memory.

    Args:
        model: a bundle for feature-extraction, or one that compares texts with images.
        texts: any number of texts, or of pages for a bundle that reads boxes. Texts longer than the model can read are
            truncated, or refused by a strict model.
        prompt: put before each text.
        prompt_name: the same, by its name in the model; the model's default prompt when neither is given.
        dimensions: keep only the first numbers of each vector, for models trained for that (Matryoshka). If the model's
            vectors have length 1, the shortened ones do too; in sentence-transformers only with
            ``normalize_embeddings=True``. Cosines are the same either way.

    Yields:
        float32 (dimensions,); zeros for a text without any token.

    Raises:
        UnsupportedError: the model does not compute vectors of texts. The call itself raises it, and errors of options.
        InputError: an option does not fit the model; or a text is not valid Unicode, or too long for a strict model.
        BundleError: a vector holds NaN or an infinity.
        TriformError: onnxruntime failed.
    """
    return chain.from_iterable(_arrays(model, texts, prompt=prompt, prompt_name=prompt_name, dimensions=dimensions))


def embedding_matrix(
    model: OpenEncoder,
    texts: Iterable[Text],
    *,
    prompt: str | None = None,
    prompt_name: str | None = None,
    dimensions: int | None = None,
) -> Array:
    """Return all vectors at once, float32 (texts, dimensions). Arguments and errors as in `embed`."""
    arrays = list(_arrays(model, texts, prompt=prompt, prompt_name=prompt_name, dimensions=dimensions))
    return np.concatenate([np.empty((0, width_of(embedding_info(model), dimensions)), np.float32), *arrays])


def similarities(
    model: OpenEncoder,
    texts: Iterable[Text],
    others: Iterable[Text] | None = None,
    *,
    prompt: str | None = None,
    prompt_name: str | None = None,
) -> NDArray[np.float64]:
    """Return the cosine of each text with each of the others, from -1 to 1: float64 (texts, others).

    Args:
        model: see `embed`.
        texts: any number of texts.
        others: texts to compare them with; themselves when None.
        prompt: see `embed`.
        prompt_name: see `embed`.

    Raises:
        TriformError: see `embed`.
    """
    left = embedding_matrix(model, texts, prompt=prompt, prompt_name=prompt_name)
    if others is None:
        return cosines(left, left)
    return cosines(left, embedding_matrix(model, others, prompt=prompt, prompt_name=prompt_name))


def embedding_info(model: OpenEncoder) -> EmbeddingInfo:
    """Return the description of the model's vectors.

    Raises:
        UnsupportedError: the model does not compute vectors of texts.
    """
    model.require("embedding", *_TASKS)
    if model.info.embedding is None or "sentence_embedding" not in model.step.outputs:
        raise UnsupportedError("the bundle has no output sentence_embedding; export the model again")
    model.reader()
    return model.info.embedding


def width_of(info: EmbeddingInfo, dimensions: int | None) -> int:
    """Return the number of dimensions to keep.

    Args:
        info: of the vectors.
        dimensions: to keep; all when None.

    Raises:
        InputError: the model's vectors have fewer dimensions.
    """
    if dimensions is not None:
        most = info.dimension
        check_whole("dimensions", dimensions, 1, most, expected=f"between 1 and the model's {most}")
    return dimensions or info.dimension


def truncated(vectors: Array, info: EmbeddingInfo, dimensions: int | None) -> Array:
    """Keep the first `dimensions` numbers of vectors (…, dimension), all if None.

    They are scaled to length 1 if the model's vectors are.
    """
    kept = vectors[..., :dimensions]
    return unit(kept) if info.normalized and dimensions is not None else kept


def resolve_prompt(info: EmbeddingInfo, prompt: str | None, prompt_name: str | None) -> str:
    """Return the text to put before each input, chosen as in sentence-transformers' ``encode``.

    Raises:
        InputError: both a prompt and a name are given, or the model has no prompt of that name.
    """
    for name, value in (("prompt", prompt), ("prompt_name", prompt_name)):
        if not isinstance(value, str | None):
            raise InputError(f"{option(name)} must be a text, not {quoted(value)}")
    if prompt is not None and prompt_name is not None:
        raise InputError("give a prompt or the name of one, not both")
    if prompt is not None:
        return prompt
    chosen = prompt_name if prompt_name is not None else info.default_prompt
    if chosen is None:
        return ""
    if chosen not in info.prompts:
        known = f"it has: {', '.join(info.prompts)}" if info.prompts else "it has none"
        raise InputError(f"the model has no prompt called {chosen!r}; {known}")
    return info.prompts[chosen]


def default_query_prompt(info: EmbeddingInfo) -> str:
    """Return the prompt of a query, as in sentence-transformers' ``encode_query``: never the model's default prompt."""
    return _first(info.prompts, _QUERY_PROMPTS)


def default_document_prompt(info: EmbeddingInfo) -> str:
    """Return the prompt of a document, as sentence-transformers documents ``encode_document``."""
    return _first(info.prompts, _DOCUMENT_PROMPTS)


def _prompt_length(model: OpenEncoder, prompt: str) -> int:
    """Count the tokens of a prompt as sentence-transformers does: without a special token at its end."""
    if not prompt or model.manifest.tokenizer is None:
        return 0
    reader = model.reader()
    (row,) = reader.read([prompt])
    special = {reader.tokenizer.token_to_id(name) for name in model.manifest.tokenizer.special.values()}
    return len(row.ids) - (row.ids[-1:] != [] and row.ids[-1] in special)


def _arrays(
    model: OpenEncoder,
    texts: Iterable[Text],
    *,
    prompt: str | None,
    prompt_name: str | None,
    dimensions: int | None,
) -> Iterator[Array]:
    """The vectors of some texts at a time, float32 (texts, dimensions). Arguments and errors as in `embed`."""
    info = embedding_info(model)
    before = resolve_prompt(info, prompt, prompt_name)
    width_of(info, dimensions)
    left_out = 0 if info.include_prompt else _prompt_length(model, before)
    prompted = (_after(before, text, number) for number, text in enumerate(texts, 1))
    batches = ahead(_chunks(prompted, model.step.size.texts), partial(_read, model))
    return (_vectors(model, batch, dimensions, left_out) for batch in batches)


def _after(prompt: str, text: Text, number: int) -> Text:
    if isinstance(text, str):
        return prompt + text
    if not isinstance(text, Page):
        raise InputError(f"text {number} is {quoted(text)}, which is not a text")
    if prompt:
        raise InputError("a prompt has no place on a page: leave it out")
    return text


def _read(model: OpenEncoder, chunk: tuple[int, list[Text]]) -> TokenBatch:
    first, texts = chunk
    batch = model.reader().read_batch(texts, first=first)
    contrast = model.info.contrast
    # Models that were trained with padding that is not masked.
    least = 0 if contrast is None else contrast.text_length or 0
    return batch.at_least(least, model.manifest.tokens.pad or 0)


def _vectors(model: OpenEncoder, batch: TokenBatch, dimensions: int | None, left_out: int) -> Array:
    vectors = model.step.vectors(batch, "sentence_embedding", left_out)
    check_numbers([vectors])
    return truncated(vectors, embedding_info(model), dimensions)


def _chunks(texts: Iterable[Text], most: int) -> Iterator[tuple[int, list[Text]]]:
    """Some texts at a time, with the number of the first, counted from 1."""
    chunk: list[Text] = []
    size, first = 0, 1
    for text in texts:
        chunk.append(text)
        size += len(text_of(text))
        if len(chunk) == most or size >= _CHUNK_CHARACTERS:
            yield first, chunk
            first += len(chunk)
            chunk, size = [], 0
    if chunk:
        yield first, chunk


def _first(prompts: Mapping[str, str], names: Iterable[str]) -> str:
    return next((prompts[name] for name in names if name in prompts), "")
