"""Reads static embeddings: folders of model2vec and sentence-transformers, text files of Word2Vec and GloVe."""

from __future__ import annotations

import json
import math
import re
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from triform.export.checkpoint.files.json_files import content_of
from triform.export.checkpoint.sentence.sentence_transformers import read_prompts, static_modules
from triform.runtime.errors import ExportError

WORD_FILES = (".txt", ".vec")
# Far more than a word and some thousands of numbers.
_LONGEST_LINE = 2**20
# The first line of Word2Vec files: a number of words, and of numbers each.
_COUNT = re.compile(r"[0-9]{1,18}")
# Tokens read of a text: model2vec's default; for words, as many as a long chapter has.
_MODEL2VEC_LENGTH, _WORDS_LENGTH = 512, 8192


@dataclass(frozen=True)
class StaticTable:
    """Vectors, and the tokenizer whose ids are their rows.

    Attributes:
        vectors: float32 (vocab_size, dimension).
        tokenizer: gives ids below vocab_size.
        unknown: the id of unknown tokens; None if there is none.
        normalize: whether the mean is scaled to length 1.
        max_length: tokens read of a text.
        prompts: texts to put before an input, by name.
        default_prompt: the name of the one to use when none is named.
    """

    vectors: torch.Tensor
    tokenizer: Tokenizer
    unknown: int | None
    normalize: bool
    max_length: int
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt: str | None = None

    @property
    def pad(self) -> int:
        """Token id that pads."""
        return self.unknown or 0


def is_static(path: Path) -> bool:
    """Whether a source holds static embeddings: word vectors as text, or a folder of one of the two kinds."""
    if path.is_file():
        return path.suffix.lower() in WORD_FILES and _ends_in_a_number(path)
    return _is_model2vec(path) or _first_module(path).endswith(".StaticEmbedding")


def _is_model2vec(folder: Path) -> bool:
    config = content_of(folder / "config.json")
    return isinstance(config, dict) and config.get("model_type") == "model2vec"


def _first_module(folder: Path) -> str:
    """The type of a sentence-transformers folder's first module; empty where that cannot be told."""
    modules = content_of(folder / "modules.json")
    first = modules[0] if isinstance(modules, list) and modules else None
    return str(first.get("type", "")) if isinstance(first, dict) else ""


def _ends_in_a_number(path: Path) -> bool:
    """Whether the first line ends in a number, which is rare in other texts."""
    with path.open("rb") as file:
        fields = file.readline(_LONGEST_LINE).split()
    try:
        float(fields[-1])
    except (IndexError, ValueError):
        return False
    return len(fields) > 1


def read_table(path: Path) -> StaticTable:
    """Read a source of which `is_static` is true.

    Raises:
        ExportError: a file is missing or damaged; names it, and the line of a text file.
    """
    if path.is_file():
        return _read_words(path)
    return _read_model2vec(path) if _is_model2vec(path) else _read_sentence_transformers(path)


def _read_model2vec(folder: Path) -> StaticTable:
    """The format is that of model2vec's ``persistence.py`` and ``model.py``."""
    config = content_of(folder / "config.json")
    vectors, tokenizer = _read_vectors(folder)
    unknown = _unknown(tokenizer)
    length = int(config.get("max_length") or _MODEL2VEC_LENGTH) + (unknown is not None)
    return StaticTable(vectors, _prepared(tokenizer, unknown), unknown, bool(config.get("normalize")), length)


def _read_sentence_transformers(folder: Path) -> StaticTable:
    """What `StaticEmbedding` saves, and perhaps a Normalize after it. Unknown tokens count in the mean."""
    place, normalize = static_modules(folder)
    vectors, tokenizer = _read_vectors(place)
    length = (tokenizer.truncation or {}).get("max_length", _WORDS_LENGTH)
    prompts, default = read_prompts(folder)
    return StaticTable(vectors, _prepared(tokenizer, None), None, normalize, length, prompts, default)


def _read_vectors(folder: Path) -> tuple[torch.Tensor, Tokenizer]:
    """One vector for each id of a tokenizer, and the tokenizer, of either kind of folder."""
    vectors = _numbers(folder / "model.safetensors")
    path = folder / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exceptions
        raise ExportError(f"{path} cannot be read: {error}") from error
    # Ids may have gaps: the largest one counts.
    size = max(tokenizer.get_vocab().values(), default=-1) + 1
    if size > len(vectors):
        raise ExportError(f"{path} has {size} tokens, but model.safetensors vectors for {len(vectors)}")
    return vectors, tokenizer


def _numbers(path: Path) -> torch.Tensor:
    """The vectors of a file, each in the place of its id and multiplied by its weight, if the file has these."""
    try:
        tensors = load_file(path)
        vectors = tensors["embedding.weight" if "embedding.weight" in tensors else "embeddings"].float()
    except Exception as error:  # safetensors has errors of its own
        raise ExportError(f"{path} has no readable tensor called embeddings: {error}") from error
    if vectors.dim() != 2:
        raise ExportError(f"{path} has embeddings of the shape {list(vectors.shape)}, not a vector for each token")
    if "mapping" in tensors:
        places = tensors["mapping"].long()
        if places.dim() != 1 or not bool(((places >= 0) & (places < len(vectors))).all()):
            raise ExportError(f"{path} has a mapping to other places than those of its {len(vectors)} vectors")
        vectors = vectors[places]
    if "weights" in tensors:
        if tensors["weights"].shape != (len(vectors),):
            raise ExportError(f"{path} has weights that are not one for each of {len(vectors)} tokens")
        vectors = vectors * tensors["weights"].float()[:, None]
    if not bool(torch.isfinite(vectors).all()):
        raise ExportError(f"{path} has vectors with numbers that are NaN or infinite; fetch the model again")
    return vectors


def _unknown(tokenizer: Tokenizer) -> int | None:
    model: dict[str, Any] = json.loads(tokenizer.to_str())["model"]
    if "unk_token" in model:
        return None if model["unk_token"] is None else tokenizer.token_to_id(model["unk_token"])
    return model.get("unk_id")


def _prepared(tokenizer: Tokenizer, unknown: int | None) -> Tokenizer:
    """The tokenizer without padding, truncation and special tokens, but with the unknown token first.

    So an empty text still has a token; it does not count in the mean.
    """
    tokenizer.no_padding()
    tokenizer.no_truncation()
    name = "" if unknown is None else str(tokenizer.id_to_token(unknown))
    around = [f"{name}:0"] if name else []
    special = [(name, unknown)] if name else []
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[*around, "$A:0"], pair=[*around, "$A:0", "$B:0"], special_tokens=special
    )
    return tokenizer


def _read_words(path: Path) -> StaticTable:
    """Lines of a word and its numbers, after an optional line with the count of words and numbers.

    The formats of fastText (Grave et al., Learning Word Vectors for 157 Languages, 2018) and GloVe (Pennington et al.,
    GloVe: Global Vectors for Word Representation, 2014).
    """
    reader = _WordReader(path)
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            reader.take(number, line)
    vectors = reader.finish()
    return StaticTable(vectors, _word_tokenizer(reader.words), len(vectors) - 1, False, _WORDS_LENGTH)


class _WordReader:
    """Reads word vectors line by line, and collects what is wrong with some lines.

    Attributes:
        words: number by word.
    """

    def __init__(self, path: Path) -> None:
        self.words: dict[str, int] = {}
        self._path = path
        self._numbers = array("f")
        self._lines: list[int] = []
        self._problems: list[str] = []
        self._dimension = 0
        self._announced: int | None = None

    def take(self, number: int, line: bytes) -> None:
        """Read line `number`."""
        try:
            # Words may hold a no-break space, which str.split() would cut at.
            fields = line.decode("utf-8").strip(" \t\r\n").replace("\t", " ").split(" ")
        except UnicodeDecodeError:
            self._problems.append(f"line {number} is not UTF-8 text")
            return
        if number == 1 and len(fields) == 2 and all(map(_COUNT.fullmatch, fields)):
            self._announced, self._dimension = int(fields[0]), int(fields[1])
            return
        self._dimension = self._dimension or len(fields) - 1
        word, values = " ".join(fields[: -self._dimension]), fields[-self._dimension :]
        if not word or self._dimension < 1:
            self._problems.append(f"line {number} is not a word and {self._dimension or 'its'} numbers")
        elif word in self.words:
            self._problems.append(f"line {number} repeats {word!r} of line {self._lines[self.words[word]]}")
        else:
            self._add(number, word, values)

    def _add(self, number: int, word: str, values: list[str]) -> None:
        try:
            vector = array("f", map(float, values))
        except (ValueError, OverflowError):
            self._problems.append(f"line {number} has something other than {self._dimension} numbers after its word")
            return
        if not all(map(math.isfinite, vector)):
            self._problems.append(f"line {number} has a number that is not finite")
            return
        self.words[word] = len(self._lines)
        self._lines.append(number)
        self._numbers.extend(vector)

    def finish(self) -> torch.Tensor:
        """The vectors, and one of zeros for unknown words.

        Raises:
            ExportError: lines were wrong, or words are missing.
        """
        if not self._problems and self._announced not in (None, len(self.words)):
            self._problems.append(f"its first line says {self._announced} words, but it has {len(self.words)}")
        if not self._problems and not self.words:
            self._problems.append("it has no words")
        if self._problems:
            more = f"; and {len(self._problems) - 3} more like these" if len(self._problems) > 3 else ""
            raise ExportError(f"{self._path} is not a file of word vectors: {'; '.join(self._problems[:3])}{more}")
        vectors = torch.frombuffer(self._numbers, dtype=torch.float32).view(-1, self._dimension)
        return torch.cat([vectors, torch.zeros(1, self._dimension)])


def _word_tokenizer(words: dict[str, int]) -> Tokenizer:
    """Words between spaces, and punctuation at either end of one; lowercased where the file has no capitals."""
    unknown = "[UNK]"
    while unknown in words:
        unknown += "_"
    tokenizer = Tokenizer(models.WordLevel({**words, unknown: len(words)}, unk_token=unknown))
    if all(word == word.lower() for word in words):
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex(r"\A[^\w\s]+|[^\w\s]+\z"), "isolated")]
    )
    return _prepared(tokenizer, len(words))
