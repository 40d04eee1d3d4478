"""Languages and tasks of Whisper whose generation config is outdated: by the names of tokens, as OpenAI has them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from transformers import AutoTokenizer, GenerationConfig, WhisperConfig
from transformers.models.whisper.tokenization_whisper import LANGUAGES

from triform.export.describe.special_tokens import forced_left_out, speech_info
from triform.runtime.errors import ExportError

# Of the English-only vocabulary, which has the tokens of languages too: openai/whisper's order of languages.
FIRST, TRANSLATE, TRANSCRIBE, NO_SPEECH, NO_TIMESTAMPS = 50258, 50357, 50358, 50361, 50362
# This tokenizer has the old code of Hebrew.
CODES = ["iw" if code == "he" else code for code in LANGUAGES][:99]


@pytest.fixture(scope="module")
def tokenizer(whisper_folder):
    return AutoTokenizer.from_pretrained(whisper_folder)


def checkpoint_of(tokenizer, size=51864, config=None, **generation):
    """Without weights."""
    model = SimpleNamespace(
        generation_config=GenerationConfig(**generation), config=WhisperConfig(vocab_size=size, **(config or {}))
    )
    return SimpleNamespace(model=model, tokenizer=tokenizer, source=SimpleNamespace(name="a-model"))


def info_of(tokenizer, size=51864, config=None, **generation):
    return speech_info(checkpoint_of(tokenizer, size, config, **generation))


@pytest.mark.parametrize(
    ("size", "generation"), [(51864, {"is_multilingual": True}), (51865, {}), (51866, {"is_multilingual": True})]
)
def test_languages_and_tasks_by_their_names(tokenizer, size, generation):
    found = info_of(tokenizer, size, **generation)
    assert found.languages == {code: FIRST + place for place, code in enumerate(CODES)}
    assert (found.transcribe, found.translate) == (TRANSCRIBE, TRANSLATE)
    assert (found.no_timestamps, found.no_speech) == (NO_TIMESTAMPS, NO_SPEECH)
    assert (found.default_language, found.default_task) == (None, None)


@pytest.mark.parametrize(("size", "generation"), [(51864, {}), (51864, {"is_multilingual": False})])
def test_a_model_of_english_only(tokenizer, size, generation):
    found = info_of(tokenizer, size, **generation)
    assert (found.languages, found.transcribe, found.translate) == ({}, None, None)
    # transformers' own English-only configs force a token that is neither a language nor a task.
    found = info_of(tokenizer, size, forced_decoder_ids=[[1, NO_TIMESTAMPS]], **generation)
    assert (found.default_language, found.default_task) == (None, None)


def test_what_the_generation_config_says_comes_first(tokenizer):
    found = info_of(tokenizer, 51865, lang_to_id={"<|de|>": 7, "<|xx|>": 8}, task_to_id={"transcribe": 9})
    assert found.languages == {"de": 7, "xx": 8}
    assert (found.transcribe, found.translate) == (9, TRANSLATE)


@pytest.mark.parametrize(
    ("generation", "config", "expected"),
    [
        ({"forced_decoder_ids": [[1, FIRST + CODES.index("hi")], [2, TRANSCRIBE]]}, {}, ("hi", "transcribe")),
        ({"forced_decoder_ids": [[1, FIRST + 2], [2, TRANSLATE], [3, NO_TIMESTAMPS]]}, {}, ("de", "translate")),
        # As the original models have it: the language is detected.
        ({"forced_decoder_ids": [[1, None], [2, TRANSCRIBE]]}, {}, (None, "transcribe")),
        ({}, {"forced_decoder_ids": [[1, FIRST + 3], [2, TRANSCRIBE]]}, ("es", "transcribe")),
        ({"forced_decoder_ids": [[1, None]]}, {"forced_decoder_ids": [[1, FIRST + 3]]}, (None, None)),
        ({"language": "german", "task": "translate"}, {"forced_decoder_ids": [[1, FIRST]]}, ("de", "translate")),
        ({"language": "<|hi|>"}, {}, ("hi", None)),
        ({"language": "Castilian"}, {}, ("es", None)),
        ({"task": "transcribe"}, {"forced_decoder_ids": [[1, FIRST + 3]]}, (None, "transcribe")),
    ],
)
def test_the_language_and_task_that_a_model_is_for(tokenizer, generation, config, expected):
    found = info_of(tokenizer, 51865, config, **generation)
    assert (found.default_language, found.default_task) == expected


def test_a_language_without_a_token_is_refused(tokenizer):
    with pytest.raises(ExportError, match=r"names the language 'klingon', of which the model has no token$"):
        info_of(tokenizer, 51865, language="klingon")


@pytest.mark.parametrize(
    ("generation", "others"),
    [
        ({"forced_decoder_ids": [[1, 50259], [2, 50358], [3, 50362]]}, None),
        ({"forced_decoder_ids": [[1, None], [2, 50358]]}, None),
        ({"forced_decoder_ids": [[1, 50259], [2, 50358], [3, 383], [4, 318]]}, "[383, 318]"),
        # transformers reads them only where nothing newer says what to begin with.
        ({"forced_decoder_ids": [[1, 383]], "task": "transcribe"}, None),
        ({}, None),
    ],
)
def test_that_forced_tokens_that_are_not_kept_are_named(tokenizer, generation, others):
    checkpoint = checkpoint_of(tokenizer, 51865, **generation)
    notes = forced_left_out(checkpoint, speech_info(checkpoint))
    assert len(notes) == (others is not None)
    assert all(f"tokens {others} are no language" in note for note in notes)
