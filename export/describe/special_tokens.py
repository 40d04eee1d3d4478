"""A model's special tokens: beginning, end, padding, and those of speech recognition."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE as LANGUAGE_CODES

from triform.export.checkpoint.source import Checkpoint
from triform.runtime.bundle.manifest import Tokens
from triform.runtime.bundle.media_info import SpeechInfo
from triform.runtime.errors import ExportError

_TASKS = ("transcribe", "translate")
_LANGUAGE = re.compile(r"<\|\w+\|>")
# openai/whisper's rule, for configs that do not say: English-only models have one token less.
_MULTILINGUAL = 51865


def tokens_of(checkpoint: Checkpoint) -> Tokens:
    """Ids of a model that generates: from the generation config where it has them, else from the tokenizer."""
    return generation_tokens(checkpoint.model.generation_config, checkpoint.tokenizer)


def generation_tokens(generation: Any, tokenizer: Any) -> Tokens:
    """See `tokens_of`, of a transformers.GenerationConfig and a tokenizer."""
    eos = generation.eos_token_id if generation.eos_token_id is not None else tokenizer.eos_token_id
    listed = [] if eos is None else [int(token) for token in (eos if isinstance(eos, list) else [eos])]
    bos = generation.bos_token_id if generation.bos_token_id is not None else tokenizer.bos_token_id
    pad = generation.pad_token_id if generation.pad_token_id is not None else tokenizer.pad_token_id
    return Tokens(bos, listed, pad)


def encoder_tokens(tokenizer: Any) -> Tokens:
    """Ids from the tokenizer; a model that does not generate has no generation config."""
    eos = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    return Tokens(tokenizer.bos_token_id, eos, tokenizer.pad_token_id, tokenizer.mask_token_id)


def padding_of(checkpoint: Checkpoint, task: str) -> int | None:
    """The token that pads the texts of an encoder; None if nothing names one.

    Classifiers of the kinds of decoders find the end of a text by the token that their own config names, which is not
    always the tokenizer's.
    """
    config = checkpoint.model.config.get_text_config()
    own, size = getattr(config, "pad_token_id", None), getattr(config, "vocab_size", 0)
    if task == "text-classification" and own is not None and 0 <= own < size:
        return int(own)
    pad: int | None = checkpoint.tokenizer.pad_token_id
    return pad


def name_padding(checkpoint: Checkpoint, task: str) -> None:
    """Give a classifier whose config names no padding the tokenizer's, if no text has it.

    Without one such a model takes the last token of a text, and no two texts at once.
    """
    config, tokenizer = checkpoint.model.config.get_text_config(), checkpoint.tokenizer
    pad = tokenizer.pad_token_id
    if task != "text-classification" or getattr(config, "pad_token_id", 0) is not None or pad is None:
        return
    if hasattr(tokenizer, "backend_tokenizer") and pad not in tokenizer("a")["input_ids"]:
        config.pad_token_id = pad


def special_strings(tokenizer: Any) -> dict[str, str]:
    """The special tokens that a template may use, as strings by name."""
    return {key: str(value) for key, value in tokenizer.special_tokens_map.items() if isinstance(value, str)}


def decoder_start(checkpoint: Checkpoint) -> int | None:
    """The token that decoding starts with; None if no config names it."""
    model = checkpoint.model
    text = model.config.get_text_config(decoder=True)
    for config in (model.generation_config, model.config, text):
        start = getattr(config, "decoder_start_token_id", None)
        if isinstance(start, list):
            start = start[0] if start else None
        if start is not None:
            return int(start)
    bos = model.generation_config.bos_token_id
    return None if bos is None else int(bos)


def speech_info(checkpoint: Checkpoint) -> SpeechInfo | None:
    """Whisper's tokens of time, language and task, by the generation config or else by their names; None without them.

    Generation configs that were saved before the middle of 2023, or by a trainer, do not list languages and tasks.
    """
    config, vocabulary = checkpoint.model.generation_config, _known_tokens(checkpoint)
    silent = getattr(config, "no_timestamps_token_id", None) or vocabulary.get("<|notimestamps|>")
    if silent is None:
        return None
    named = getattr(config, "lang_to_id", None) or _languages_by_name(checkpoint, vocabulary)
    languages = {name.strip("<|>"): int(id_) for name, id_ in named.items()}
    by_name = {task: vocabulary.get(f"<|{task}|>") for task in _TASKS if languages}
    tasks = by_name | (getattr(config, "task_to_id", None) or {})
    language, task = _forced(checkpoint, {id_: name for name, id_ in languages.items()}, tasks)
    return SpeechInfo(
        # In every tokenizer of Whisper the timestamps come next.
        timestamp_begin=int(silent) + 1,
        no_timestamps=int(silent),
        languages=languages,
        transcribe=tasks.get("transcribe"),
        translate=tasks.get("translate"),
        no_speech=vocabulary.get("<|nospeech|>", vocabulary.get("<|nocaptions|>")),
        previous=getattr(config, "prev_sot_token_id", None) or vocabulary.get("<|startofprev|>"),
        max_initial_timestamp_index=getattr(config, "max_initial_timestamp_index", None),
        alignment_heads=sorted(
            [int(index) for index in pair] for pair in getattr(config, "alignment_heads", None) or ()
        ),
        default_language=language,
        default_task=task,
    )


def _known_tokens(checkpoint: Checkpoint) -> dict[str, int]:
    """The vocabulary as far as the model has embeddings."""
    size = int(checkpoint.model.config.get_text_config(decoder=True).vocab_size)
    return {token: id_ for token, id_ in checkpoint.tokenizer.get_vocab().items() if id_ < size}


def _languages_by_name(checkpoint: Checkpoint, vocabulary: Mapping[str, int]) -> dict[str, int]:
    """The tokens of languages, which stand between the start and the first task; none for an English-only model."""
    multilingual = getattr(checkpoint.model.generation_config, "is_multilingual", None)
    if multilingual is None:
        multilingual = checkpoint.model.config.vocab_size >= _MULTILINGUAL
    first, last = vocabulary.get("<|startoftranscript|>"), vocabulary.get("<|translate|>")
    if not multilingual or first is None or last is None:
        return {}
    return {
        token: id_
        for token, id_ in sorted(vocabulary.items(), key=lambda item: item[1])
        if first < id_ < last and _LANGUAGE.fullmatch(token)
    }


def _forced(
    checkpoint: Checkpoint, languages: Mapping[int, str], tasks: Mapping[str, Any]
) -> tuple[str | None, str | None]:
    """The language and the task that a model is for, as transformers' ``generate`` finds them.

    Args:
        checkpoint: of the model.
        languages: by id.
        tasks: ids by name.
    """
    config = checkpoint.model.generation_config
    language, task = getattr(config, "language", None), getattr(config, "task", None)
    if language is None and task is None:
        ids = _forced_ids(checkpoint)
        language = next((languages[id_] for id_ in ids if id_ in languages), None)
        task = next((name for name, id_ in tasks.items() if id_ is not None and id_ in ids), None)
        return language, task if languages else None
    codes = set(languages.values())
    written = str(language).strip("<|>").lower() if language is not None else None
    code = LANGUAGE_CODES.get(written, written) if written is not None else None
    if code is not None and codes and code not in codes:
        raise ExportError(
            f"the generation config of {checkpoint.source.name} names the language {language!r:.40}, "
            "of which the model has no token"
        )
    return (code if codes else None), (str(task) if task in _TASKS and codes else None)


def _forced_ids(checkpoint: Checkpoint) -> list[int]:
    """The tokens that older configs begin every transcript with."""
    forced = getattr(checkpoint.model.generation_config, "forced_decoder_ids", None)
    if forced is None:
        forced = getattr(checkpoint.model.config, "forced_decoder_ids", None)
    return [id_ for _, id_ in forced or () if id_ is not None]


def forced_left_out(checkpoint: Checkpoint, speech: SpeechInfo) -> list[str]:
    """A note of the tokens that a config begins transcripts with and that are no language, no task and no times."""
    config = checkpoint.model.generation_config
    if getattr(config, "language", None) is not None or getattr(config, "task", None) is not None:
        # Then transformers does without them, too.
        return []
    known = {*speech.languages.values(), speech.transcribe, speech.translate, speech.no_timestamps}
    others = [id_ for id_ in _forced_ids(checkpoint) if id_ not in known]
    if not others:
        return []
    return [f"left out forced_decoder_ids, whose tokens {others} are no language and no task: transcripts lack them"]
