"""A model's special tokens: where sequences begin and end, what pads, what recognizes speech."""

from __future__ import annotations

from typing import Any

from triform.export.checkpoint.source import Checkpoint
from triform.runtime.bundle.manifest import Tokens
from triform.runtime.bundle.media_info import SpeechInfo


def tokens_of(checkpoint: Checkpoint) -> Tokens:
    """Ids of a model that generates: from the generation config where it has them, else from the tokenizer."""
    generation, tokenizer = checkpoint.model.generation_config, checkpoint.tokenizer
    eos = generation.eos_token_id if generation.eos_token_id is not None else tokenizer.eos_token_id
    listed = [] if eos is None else [int(one) for one in (eos if isinstance(eos, list) else [eos])]
    bos = generation.bos_token_id if generation.bos_token_id is not None else tokenizer.bos_token_id
    pad = generation.pad_token_id if generation.pad_token_id is not None else tokenizer.pad_token_id
    return Tokens(bos, listed, pad)


def encoder_tokens(tokenizer: Any) -> Tokens:
    """Ids from the tokenizer; a model that does not generate has no generation config."""
    eos = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    return Tokens(tokenizer.bos_token_id, eos, tokenizer.pad_token_id, tokenizer.mask_token_id)


def special_strings(tokenizer: Any) -> dict[str, str]:
    """The strings a template may use, by name."""
    return {key: str(value) for key, value in tokenizer.special_tokens_map.items() if isinstance(value, str)}


def decoder_start(checkpoint: Checkpoint) -> int | None:
    """The token that decoding starts with; None when nothing says."""
    model = checkpoint.model
    text = model.config.get_text_config(decoder=True)
    for config in (model.generation_config, model.config, text):
        found = getattr(config, "decoder_start_token_id", None)
        if found is not None:
            return int(found[0] if isinstance(found, list) else found)
    bos = model.generation_config.bos_token_id
    return None if bos is None else int(bos)


def speech_info(checkpoint: Checkpoint) -> SpeechInfo | None:
    """Whisper's tokens of time, language and task, by the generation config or else by their names; None without."""
    config, vocabulary = checkpoint.model.generation_config, checkpoint.tokenizer.get_vocab()
    silent = getattr(config, "no_timestamps_token_id", None) or vocabulary.get("<|notimestamps|>")
    if silent is None:
        return None
    languages = getattr(config, "lang_to_id", None) or {}
    tasks = getattr(config, "task_to_id", None) or {}
    return SpeechInfo(
        # Every tokenizer of Whisper's has the times right behind it.
        timestamp_begin=int(silent) + 1,
        no_timestamps=int(silent),
        languages={name.strip("<|>"): int(id_) for name, id_ in languages.items()},
        transcribe=tasks.get("transcribe"),
        translate=tasks.get("translate"),
        no_speech=vocabulary.get("<|nospeech|>", vocabulary.get("<|nocaptions|>")),
        previous=getattr(config, "prev_sot_token_id", None) or vocabulary.get("<|startofprev|>"),
        max_initial_timestamp_index=getattr(config, "max_initial_timestamp_index", None),
        alignment_heads=sorted([int(one) for one in pair] for pair in getattr(config, "alignment_heads", None) or ()),
    )
