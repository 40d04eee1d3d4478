"""Every encoder-decoder family, exported, writes what transformers writes: the same tokens, by every kind of search."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from tests.checkpoints.encoder_decoder_families import FAMILIES, Family, auto_class
from tests.helpers.families import families
from tests.helpers.signals import noise, tone, voice
from triform.runtime.encoder_decoder.ask import Ask
from triform.runtime.encoder_decoder.model import EncoderDecoder
from triform.runtime.generation.options.beams import Beams
from triform.runtime.generation.options.generation import GenerationOptions
from triform.runtime.generation.options.groups import Constraints, Penalties
from triform.runtime.generation.search.choice import run_search
from triform.runtime.generation.setup import settle
from triform.runtime.media.audio_features import audio_features
from triform.runtime.media.image import pixel_values
from triform.runtime.opening import load_encoder_decoder

TEXTS = [
    "There is an old argument about mathematics.",
    "a",
    "The museum is open from nine to five, and closed on the first Monday of every month.",
    "What did she see?",
    "Not far from here!",
]
LIMIT = 16
# By transformers' names: token by token; four beams, as the model would have the rest; four beams of other settings;
# and what the model's own generation config says, where that is another number of beams.
SEARCHES: dict[str, dict[str, Any]] = {
    "greedy": {"num_beams": 1},
    "beams": {"num_beams": 4},
    "other beams": {"num_beams": 4, "length_penalty": -0.7, "early_stopping": "never", "no_repeat_ngram_size": 2},
    "own": {},
}
READING = [name for name, family in FAMILIES.items() if family.extractor is None]
HEARING_OR_SEEING = [name for name in FAMILIES if name not in READING]
# Layers of T5's or BART's, under tokenizers that tests/runtime/text compares, and a second encoder of images.
MORE_READING = {"mt5", "mbart", "marian", "nllb", "pegasus", "blenderbot", "flan", "longt5, local"}
MORE_SEEING = {"trocr, deit", "speech_to_text"}


@dataclass(frozen=True)
class Made:
    family: Family
    folder: Path
    original: Any
    tokenizer: Any
    bundle: EncoderDecoder


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Products this small take longer on several."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def made(exported_family):
    @cache
    def make(name):
        folder, bundle = exported_family(name)
        original = auto_class(FAMILIES[name]).from_pretrained(folder).eval()
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        return Made(FAMILIES[name], folder, original, tokenizer, load_encoder_decoder(bundle))

    return make


def searches_for(family):
    own = family.generation.get("num_beams", 1) not in (1, 4)
    return [(kind, search) for kind, search in SEARCHES.items() if own or kind != "own"]


def options_of(search, **more):
    """A search in the runtime's terms."""
    asked = {name: value for name, value in search.items() if name != "no_repeat_ngram_size"}
    penalties = Penalties(no_repeat_ngram_size=search.get("no_repeat_ngram_size"))
    return GenerationOptions(max_new_tokens=LIMIT, penalties=penalties, **more), Beams(**asked)


def expected(model, inputs, search, **more):
    """The tokens that transformers writes about each row, the one decoding starts with left out."""
    ends = model.generation_config.eos_token_id
    rows = model.generate(**inputs, max_new_tokens=LIMIT, do_sample=False, **search, **more).tolist()
    found = []
    for row in rows:
        length = next((place for place, token in enumerate(row) if place and token in ends), len(row) - 1)
        found.append(row[1 : length + 1])
    return found


def check_variety(answers):
    """Answers that prove something: not one token over and over, and not the same for every source."""
    assert len({tuple(answer) for answer in answers}) == len(answers)
    assert np.mean([len(set(answer)) for answer in answers]) >= 4
    assert len({token for answer in answers for token in answer}) >= 12


@pytest.mark.parametrize("name", families(READING, MORE_READING))
def test_texts(made, name):
    one = made(name)
    family, bundle = one.family, one.bundle
    forced = {}
    if family.source_lang:
        one.tokenizer.src_lang = family.source_lang
    if family.target_lang:
        (forced["forced_bos_token_id"],) = bundle.text.forced(family.target_lang)
    inputs = dict(one.tokenizer(TEXTS, return_tensors="pt", padding=True))
    inputs.pop("token_type_ids", None)
    ask = Ask(source_lang=family.source_lang, target_lang=family.target_lang)
    for kind, search in searches_for(family):
        options, beams = options_of(search)
        wanted = expected(one.original, inputs, search, **forced)
        found = list(bundle.generate_all(TEXTS, options, ask=ask, beams=beams, batch=len(TEXTS)))
        assert [list(best.token_ids) for (best,) in found] == wanted, kind
        # Neither the batch a text is in nor its padding changes anything.
        if kind == "greedy":
            check_variety(wanted)
            alone = [bundle.generate(text, options, ask=ask, beams=beams) for text in TEXTS]
            assert [list(answer.token_ids) for answer in alone] == wanted
        elif kind == "other beams":
            by_threes = list(bundle.generate_all(TEXTS, options, ask=ask, beams=beams, batch=3))
            assert [list(best.token_ids) for (best,) in by_threes] == wanted


def sources_of(one: Made) -> list[dict[str, np.ndarray]]:
    """What the encoder takes of a few sounds or images, each a batch of one."""
    info = one.bundle.info
    if info.image is not None:
        generator = np.random.default_rng(5)
        images = [Image.fromarray(generator.integers(0, 256, (h, w, 3), np.uint8)) for h, w in ((31, 60), (24, 24))]
        images.append(Image.fromarray(np.full((50, 40, 3), 200, np.uint8)))
        return [{"pixel_values": pixel_values(image, info.image)[None]} for image in images]
    if info.audio is None:
        raise AssertionError(f"{one.folder} hears nothing")
    found = []
    for sound in (voice(1.9), noise(0.8), tone(2.6, 300) + voice(2.6, 90)):
        features = audio_features(sound, info.audio)[None]
        mask = {} if info.audio.kind == "log_mel" else {"attention_mask": np.ones(features.shape[:2], np.int64)}
        found.append({one.original.main_input_name: features, **mask})
    return found


@pytest.mark.parametrize("name", families(HEARING_OR_SEEING, MORE_SEEING))
def test_sounds_and_images(made, name):
    one = made(name)
    bundle = one.bundle
    sources = sources_of(one)
    for kind, search in searches_for(one.family):
        options, beams = options_of(search)
        forced = bundle.text.forced(one.family.target_lang)
        if forced:
            options, beams = options_of(search, constraints=Constraints(forced_bos_token_id=forced[0]))
        settled, answers = settle(options, bundle.manifest, bundle.text.target, beams=beams), []
        row = settled.row([bundle.info.decoder_start])
        for arrays in sources:
            step = bundle.reader.batch_step(bundle.reader.read(arrays))
            ((best,),) = run_search(step, [row], settled.search)
            inputs = {key: torch.from_numpy(value) for key, value in arrays.items()}
            more = {"forced_bos_token_id": forced[0]} if forced else {}
            assert [list(best.token_ids)] == expected(plain(one.original), inputs, search, **more), kind
            answers.append(best.token_ids)
            if settled.search is None:
                pieces = bundle.pieces(bundle.reader.read(arrays), row)
                assert tuple(id_ for piece in pieces for id_ in piece.token_ids) == best.token_ids
        if kind == "greedy":
            check_variety(answers)


def plain(model: Any) -> Any:
    """The model with every model's `generate`: Whisper's own puts tokens of its choice before the answer."""
    if type(model).__name__ != "WhisperForConditionalGeneration":
        return model

    class Plain(type(model)):
        generate = transformers.GenerationMixin.generate

    model.__class__ = Plain
    return model
