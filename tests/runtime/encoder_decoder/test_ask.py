"""Tasks, prefixes and languages of requests, with the manifest of a T5 and without tasks."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from triform.runtime.bundle.reading import read_manifest
from triform.runtime.bundle.text_info import TaskPrefix
from triform.runtime.encoder_decoder.ask import Ask, manifest_for, prefix_for, spoken, summary_ask, translation_ask
from triform.runtime.errors import InputError

T5 = Path(__file__).parents[1] / "bundle" / "manifests" / "t5.json"


@pytest.fixture
def manifest(tmp_path):
    (tmp_path / "manifest.json").write_bytes(T5.read_bytes())
    return read_manifest(tmp_path)


@pytest.fixture
def info(manifest):
    return manifest.encoder_decoder


def only(info, *names):
    return dataclasses.replace(info, tasks={name: TaskPrefix(f"{name}: ") for name in names})


def test_prefixes(info):
    assert prefix_for(info, Ask()) == ""
    assert prefix_for(info, Ask(task="summarization")) == "summarize: "
    assert prefix_for(info, Ask(task="summarization", prefix="")) == ""
    assert prefix_for(info, Ask(prefix="say: ")) == "say: "
    listed = "summarization, translation_en_to_de, translation_en_to_fr"
    with pytest.raises(InputError, match=f"^this model has no task called 'x'; it has: {listed}$"):
        prefix_for(info, Ask(task="x"))
    with pytest.raises(InputError, match=r"it has: none$"):
        prefix_for(only(info), Ask(task="x"))


def test_a_task_has_its_own_settings(manifest):
    assert manifest_for(manifest, Ask()) is manifest
    found = manifest_for(manifest, Ask(task="translation_en_to_de")).generation
    assert found.num_beams == 2
    assert manifest_for(manifest, Ask(task="summarization")).generation.no_repeat_ngram_size == 3
    with pytest.raises(InputError, match="no task called 'x'"):
        manifest_for(manifest, Ask(task="x"))
    without = dataclasses.replace(manifest, encoder_decoder=None)
    assert manifest_for(without, Ask(task="x")) is without


@pytest.mark.parametrize(
    ("languages", "task"),
    [(("en", "de"), "de"), ((None, "fr"), "fr"), (("EN", "Fr"), "fr"), ((None, "DE"), "de")],
)
def test_the_translation_that_fits(info, languages, task):
    assert translation_ask(info, *languages) == Ask(task=f"translation_en_to_{task}")


@pytest.mark.parametrize(
    ("languages", "message"),
    [
        ((None, None), "this model translates en to de, en to fr; choose with `source_lang` and `target_lang`"),
        (("en", None), "this model translates en to de, en to fr; choose with"),
        (("de", "en"), "this model does not translate de to en, but en to de, en to fr"),
        ((None, "pl"), "this model does not translate any to pl, but"),
        (("pl", None), "this model does not translate pl to any, but"),
    ],
)
def test_translations_that_are_none_or_several(info, languages, message):
    with pytest.raises(InputError, match=f"^{message}"):
        translation_ask(info, *languages)


def test_the_only_translation_needs_no_languages(info):
    name = "translation_ru_to_en"
    assert translation_ask(only(info, name, "summarization")) == Ask(task=name)


def test_a_model_without_translation_tasks(info):
    assert translation_ask(only(info), "en", "de") == Ask(source_lang="en", target_lang="de")
    with pytest.raises(InputError, match=r"^this model has no translation task; it has: summarization, other$"):
        translation_ask(only(info, "summarization", "other"), "en", "de")


def test_summaries(info):
    assert summary_ask(info) == Ask(task="summarization")
    assert summary_ask(only(info)) == Ask()
    with pytest.raises(InputError, match=r"no task called 'summarization'; it has: a, b$"):
        summary_ask(only(info, "a", "b"))


@pytest.mark.parametrize(
    ("ask", "code"),
    [
        (Ask(), None), (Ask(task="summarization"), None), (Ask(task="translation_fr_to_en"), "fr"),
        (Ask(source_lang="pt-BR"), "pt"), (Ask(source_lang="de_DE"), "de"), (Ask(source_lang="ENG_Latn"), "eng"),
        (Ask(task="summarization", source_lang="sv"), "sv"), (Ask(task="translation_fr_to_en", source_lang="de"), "fr"),
        (Ask(source_lang=""), None),
    ],
)  # fmt: skip
def test_the_language_that_is_spoken(ask, code):
    assert spoken(ask) == code
