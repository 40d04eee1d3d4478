"""Writes the tokenizers of an encoder-decoder for the runtime, and compares them with the originals."""

from __future__ import annotations

import random
import unicodedata
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders

from triform.export.tokenization.conversion import convert, difficult_texts, surround, with_added_tokens, write
from triform.export.tokenization.seq2seq_languages import languages_of
from triform.export.tokenization.seq2seq_moses import moses_of, reading_words, target_vocabulary, writing_words
from triform.export.tokenization.seq2seq_pieces import Pieces, parse, tokenizer_of
from triform.runtime.bundle.text_info import SourceTextInfo
from triform.runtime.encoder_decoder.source_text import SourceText, compose
from triform.runtime.errors import ExportError

_FILE, _TARGET_FILE = "tokenizer.json", "target_tokenizer.json"
# What transformers' clean_up_tokenization replaces, in its order.
_CLEAN = (
    (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"),
    (" n't", "n't"), (" 'm", "'m"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"),
)  # fmt: skip
# Vietnamese, Korean, Japanese and Greek in decomposed form.
_IN_PARTS = unicodedata.normalize("NFD", "ế Ç\u0303 한국어 がぎ й ᾂ")
_NO_LIMIT = 1 << 30
_SAMPLES = 50


def save_tokenizers(tokenizer: Any, folder: Path, name: str = "this model") -> SourceTextInfo:
    """Write tokenizer.json, which reads source texts, and target_tokenizer.json where another one decodes.

    Args:
        tokenizer: of transformers, in Python or not.
        folder: to write to.
        name: what to call its model in errors.

    Returns:
        what else the runtime must know to read texts.

    Raises:
        ExportError: the tokenizer cannot be written so that it gives the same ids and texts.
    """
    info = _written_words(tokenizer, folder) or _written(tokenizer, folder, name)
    problem = tokenizer_difference(tokenizer, folder, info)
    if problem is not None:
        raise ExportError(f"the tokenizer of {name}, a {type(tokenizer).__name__}, cannot be written: {problem}")
    return info


def _written(tokenizer: Any, folder: Path, name: str) -> SourceTextInfo:
    """Write the tokenizers that read and decode texts."""
    pieces = _pieces(tokenizer)
    backend = _rebuilt(tokenizer, pieces) if pieces else _backend(tokenizer, name)
    target = _target(tokenizer)
    write(_decoding_alike(backend, tokenizer), folder / _FILE)
    if target is not None:
        write(_decoding_alike(target, tokenizer), folder / _TARGET_FILE)
    return SourceTextInfo(
        target_file=_TARGET_FILE if target is not None else None,
        languages=languages_of(tokenizer),
        unknown=tokenizer.unk_token_id if pieces else None,
        vocabulary=max(pieces.vocabulary.values()) + 1 if pieces else None,
        composed=bool(pieces) and tokenizer.tokenize(_IN_PARTS) == tokenizer.tokenize(compose(_IN_PARTS)),
    )


def _written_words(tokenizer: Any, folder: Path) -> SourceTextInfo | None:
    """Write the tokenizers that read and decode words; None if texts are not split into words first."""
    moses = moses_of(tokenizer, dict(_CLEAN) if tokenizer.clean_up_tokenization_spaces else {})
    if moses is None:
        return None
    write(reading_words(tokenizer), folder / _FILE)
    write(writing_words(tokenizer), folder / _TARGET_FILE)
    return SourceTextInfo(
        target_file=_TARGET_FILE,
        unknown=tokenizer.unk_token_id,
        vocabulary=max(tokenizer.get_vocab().values()) + 1,
        moses=moses,
    )


def tokenizer_difference(tokenizer: Any, folder: Path, info: SourceTextInfo) -> str | None:
    """How the files differ from the tokenizer they were made from, in words; None if they do not."""
    reader = SourceText(folder, info, _NO_LIMIT, _NO_LIMIT)
    languages = reader.languages
    target = next(iter(languages.targets), None) if languages.targets and not languages.sources else None
    code = languages.targets[target].asked if target else []
    for text in (*difficult_texts(), *([_IN_PARTS] if info.composed else [])):
        ids = tokenizer(text, verbose=False)["input_ids"]
        (rebuilt,) = reader.read([text], target_lang=target)
        if rebuilt != [*code, *ids]:
            return f"rewritten, it reads {text[:40]!r} otherwise"
        written = tokenizer(text_target=text, verbose=False)["input_ids"] if info.target_file else ids
        if _decoded(tokenizer, written) != reader.target.decode(written):
            return f"rewritten, it decodes {text[:40]!r} otherwise"
    for ids in _random_ids(tokenizer):
        if _decoded(tokenizer, ids) != reader.target.decode(ids):
            return f"rewritten, it decodes the tokens {ids[:8]} otherwise"
    return None


def _decoded(tokenizer: Any, ids: list[int]) -> str:
    text: str = tokenizer.decode(ids, skip_special_tokens=True)
    return text


def _random_ids(tokenizer: Any) -> list[list[int]]:
    generator = random.Random(0)
    # Tokens that are not text are compared one by one elsewhere; between bytes they decode differently.
    apart = set(tokenizer.added_tokens_decoder)
    known = set(range(len(tokenizer)))
    written = _written_by(tokenizer)
    if written is not None:
        known = set(written.values())
        # transformers recognizes the target's special tokens by their ids in the source's vocabulary.
        apart |= {written.get(token) for token in tokenizer.all_special_tokens}
    text = sorted(known - apart)
    return [[generator.choice(text) for _ in range(generator.randint(1, 30))] for _ in range(_SAMPLES)]


def _backend(tokenizer: Any, name: str) -> Tokenizer:
    fast = tokenizer if hasattr(tokenizer, "backend_tokenizer") else convert(tokenizer, name)
    # A copy, because its decoder is changed later.
    return Tokenizer.from_str(fast.backend_tokenizer.to_str())


def _pieces(tokenizer: Any) -> Pieces | None:
    """The parts of a tokenizer that pairs sentencepiece with its own vocabulary; None for any other."""
    model = getattr(tokenizer, "spm_source", None) or getattr(tokenizer, "sp_model", None)
    if model is None or not isinstance(getattr(tokenizer, "encoder", None), dict):
        return None
    begins_with_code = tokenizer.tokenize(">>a<<b")[0] == ">>a<<"
    vocabulary = {**getattr(tokenizer, "lang_token_to_id", {}), **tokenizer.get_vocab()}
    whole = frozenset(tokenizer.added_tokens_encoder)
    return Pieces(parse(model.serialized_model_proto()), vocabulary, whole, tokenizer.unk_token, begins_with_code)


def _rebuilt(tokenizer: Any, pieces: Pieces) -> Tokenizer:
    rebuilt = with_added_tokens(tokenizer_of(pieces), tokenizer)
    surround(rebuilt, tokenizer)
    return rebuilt


def _written_by(tokenizer: Any) -> dict[str, int] | None:
    """The target vocabulary, if it differs from the source vocabulary."""
    if getattr(tokenizer, "separate_vocabs", False):
        vocabulary: dict[str, int] = tokenizer.target_encoder
        return vocabulary
    return target_vocabulary(tokenizer) if moses_of(tokenizer, {}) else None


def _target(tokenizer: Any) -> Tokenizer | None:
    """The tokenizer that decodes, if source and target have separate vocabularies (Marian)."""
    if not getattr(tokenizer, "separate_vocabs", False):
        return None
    # Its special tokens are those in its own vocabulary; the source's ids mean other tokens here.
    whole = frozenset(token for token in tokenizer.added_tokens_encoder if token in tokenizer.target_encoder)
    proto = parse(tokenizer.spm_target.serialized_model_proto())
    rebuilt = tokenizer_of(Pieces(proto, tokenizer.target_encoder, whole, tokenizer.unk_token))
    rebuilt.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in sorted(whole)])
    return rebuilt


def _decoding_alike(backend: Tokenizer, tokenizer: Any) -> Tokenizer:
    """Make a tokenizer decode as transformers does: hide some tokens, remove spaces before punctuation."""
    hidden = [
        _special(token)
        for index, token in tokenizer.added_tokens_decoder.items()
        if not token.special and not _decoded(tokenizer, [index]) and backend.decode([index])
    ]
    # All at once: each call takes as long as there are tokens, of which Whisper has 1,500 for times.
    backend.add_special_tokens(hidden)
    if _cleans(tokenizer, backend):
        steps = [decoders.Replace(spaced, closed) for spaced, closed in _CLEAN]
        backend.decoder = decoders.Sequence([backend.decoder, decoders.Fuse(), *steps])
    return backend


def _special(token: Any) -> AddedToken:
    return AddedToken(
        token.content,
        single_word=token.single_word,
        lstrip=token.lstrip,
        rstrip=token.rstrip,
        normalized=token.normalized,
        special=True,
    )


def _cleans(tokenizer: Any, backend: Tokenizer) -> bool:
    """Whether transformers removes spaces before punctuation: if it is set to, except for its own BPE."""
    spared = type(backend.model).__name__ == "BPE" and hasattr(tokenizer, "backend_tokenizer")
    forced = getattr(tokenizer, "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output", False)
    return bool(tokenizer.clean_up_tokenization_spaces) and (forced or not spared)
