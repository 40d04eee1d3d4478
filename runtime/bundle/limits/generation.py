"""Ranges of a model's generation defaults, and of the settings of its tasks."""

from __future__ import annotations

from collections.abc import Iterator

from triform.runtime.bundle.generation_defaults import GenerationDefaults
from triform.runtime.bundle.limits.contract import LARGEST, Limit, token_id, token_ids, within

# Far beyond any useful value, and logits times this are still finite.
_STRONGEST = 1e6
_RANGES: dict[str, tuple[float, float]] = {
    "temperature": (0, _STRONGEST),
    "top_k": (0, LARGEST),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "typical_p": (0, 1),
    "epsilon_cutoff": (0, 1),
    "eta_cutoff": (0, 1),
    "repetition_penalty": (1 / _STRONGEST, _STRONGEST),
    "encoder_repetition_penalty": (1 / _STRONGEST, _STRONGEST),
    "no_repeat_ngram_size": (0, LARGEST),
    "encoder_no_repeat_ngram_size": (0, LARGEST),
    # Every beam is a row of the cache.
    "num_beams": (1, 1024),
    "num_beam_groups": (1, 1024),
    "diversity_penalty": (0, _STRONGEST),
    # An exponent of the answer's length.
    "length_penalty": (-100, 100),
    "min_new_tokens": (0, LARGEST),
    "min_length": (0, LARGEST),
    "max_new_tokens": (1, LARGEST),
    "max_length": (1, LARGEST),
}
_IDS = ("forced_eos_token_id", "suppress_tokens", "begin_suppress_tokens")
# In characters; longer stop strings never occur in an answer.
_LONGEST_STOP = 10_000


def generation_limits(defaults: GenerationDefaults, vocab_size: int, key: str = "generation") -> Iterator[Limit]:
    """Yield the rules for a model's defaults.

    Args:
        defaults: the values.
        vocab_size: size of the output vocabulary.
        key: of the defaults in the manifest.
    """
    for name, (least, most) in _RANGES.items():
        yield within(f"{key}.{name}", getattr(defaults, name), least, most)
    decay = defaults.exponential_decay_length_penalty
    fits = decay is None or (len(decay) == 2 and 0 <= decay[0] <= LARGEST and 0 < decay[1] <= _STRONGEST)
    expected = f"a number of tokens and a factor above 0 and at most {_STRONGEST:g}"
    yield Limit(f"{key}.exponential_decay_length_penalty", decay, fits, expected)
    early = defaults.early_stopping
    yield Limit(f"{key}.early_stopping", early, not isinstance(early, str) or early == "never", "true, false or never")
    for name in _IDS:
        yield from token_ids(f"{key}.{name}", getattr(defaults, name), vocab_size)
    yield token_id(f"{key}.forced_bos_token_id", defaults.forced_bos_token_id, vocab_size)
    for index, word in enumerate(defaults.bad_words_ids):
        yield Limit(f"{key}.bad_words_ids[{index}]", word, bool(word), "a list of at least one token id")
        yield from token_ids(f"{key}.bad_words_ids[{index}]", word, vocab_size)
    for index, stop in enumerate(defaults.stop_strings):
        fits = 0 < len(stop) <= _LONGEST_STOP
        yield Limit(f"{key}.stop_strings[{index}]", stop, fits, f"a text of 1 to {_LONGEST_STOP} characters")
