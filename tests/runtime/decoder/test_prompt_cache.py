"""Tokens that the cache holds are not run again, in one process and from one to the next."""

from __future__ import annotations

import dataclasses
import json
import zlib

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import triform
from triform.runtime.decoder.prompt import PromptInput
from triform.runtime.decoder.prompt_cache import read_prompt_cache, write_prompt_cache
from triform.runtime.errors import InputError
from triform.runtime.generation.options.generation import GenerationOptions

RULES = "You are the keeper of a small lighthouse and answer every question about the sea briefly. " * 3
QUESTIONS = ("How deep is it?", "How old is the harbor?")
GREEDY = GenerationOptions(max_new_tokens=24, temperature=0)


@pytest.fixture
def decoder(float_bundle):
    return triform.load(float_bundle)


def runs(decoder, monkeypatch):
    """How many tokens each run of the graph is fed, from now on."""
    from triform.runtime.graphs.decoding import step

    fed = []
    original = step.run_step

    def counted(session, binding):
        fed.append(binding.input_ids.shape[1])
        original(session, binding)

    monkeypatch.setattr(step, "run_step", counted)
    return fed


def test_a_second_question_runs_only_what_is_new(decoder, float_bundle, monkeypatch):
    expected = [triform.load(float_bundle).generate(one, GREEDY, system=RULES) for one in QUESTIONS]
    fed = runs(decoder, monkeypatch)
    first = decoder.generate(QUESTIONS[0], GREEDY, system=RULES)
    fed.clear()
    second = decoder.generate(QUESTIONS[1], GREEDY, system=RULES)
    assert [first.token_ids, second.token_ids] == [one.token_ids for one in expected]
    # What the two have in common, counted by the tokenizer itself.
    ids = [decoder._prompts.prompt_ids(PromptInput(question, RULES)) for question in QUESTIONS]
    common = next(place for place, (a, b) in enumerate(zip(*ids, strict=False)) if a != b)
    # A prompt is continued after an even number of tokens.
    kept = common - common % 2
    assert (first.cached_tokens, second.cached_tokens) == (0, kept)
    assert fed[0] == len(ids[1]) - kept


def test_a_conversation_goes_on_where_it_was(decoder, float_bundle):
    messages = [{"role": "user", "content": QUESTIONS[0]}]
    answer = decoder.generate(messages, GREEDY)
    read = answer.prompt_tokens + len(answer.token_ids)
    # The tokens themselves rather than their text, which another tokenization could spell.
    follow = [*decoder._step.ids, 7, 8, 9]
    assert len(follow) == read - 1 + 3
    assert decoder._step.shared(follow) == (read - 1) // 2 * 2
    found = decoder._step.prefill(follow)
    fresh = triform.load(float_bundle)._step.prefill(follow)
    assert np.abs(found - fresh).max() < 1e-4 * np.abs(fresh).max()


def test_the_same_prompt_runs_its_last_tokens(decoder, monkeypatch):
    first = decoder.generate(QUESTIONS[0], GREEDY, system=RULES)
    fed = runs(decoder, monkeypatch)
    again = decoder.generate(QUESTIONS[0], GREEDY, system=RULES)
    assert again.token_ids == first.token_ids
    assert again.cached_tokens == (again.prompt_tokens - 2) // 2 * 2
    assert fed[0] == again.prompt_tokens - again.cached_tokens
    # A shorter prompt leaves nothing of the longer one behind.
    short = decoder.generate(QUESTIONS[0], GREEDY, raw=True)
    decoder.forget()
    fresh = decoder.generate(QUESTIONS[0], GREEDY, raw=True)
    assert (short.token_ids, fresh.cached_tokens) == (fresh.token_ids, 0)


def test_what_else_uses_the_cache_leaves_nothing_wrong(decoder):
    expected = decoder.generate(QUESTIONS[0], GREEDY).token_ids
    decoder.perplexity(RULES)
    decoder.logits(RULES)
    stream = decoder.stream(QUESTIONS[1], GREEDY)
    next(stream)
    assert decoder.generate(QUESTIONS[0], GREEDY).token_ids == expected
    with pytest.raises(InputError, match="another one with the same decoder began"):
        next(stream)


def test_a_run_that_fails_is_not_held(decoder, monkeypatch):
    from triform.runtime.graphs.decoding import step

    expected = decoder.generate(QUESTIONS[0], GREEDY).token_ids
    decoder.forget()

    def fails(session, binding):
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(step, "run_step", fails)
        with pytest.raises(RuntimeError):
            decoder.generate(QUESTIONS[0], GREEDY)
    assert decoder._step.ids == []
    assert decoder.generate(QUESTIONS[0], GREEDY).token_ids == expected


def test_a_prompt_is_kept_on_disk(decoder, float_bundle, tmp_path, monkeypatch):
    file = tmp_path / "rules.cache"
    decoder.generate(QUESTIONS[0], GREEDY, system=RULES)
    expected = decoder.generate(QUESTIONS[1], GREEDY, system=RULES)
    decoder.save_prompt_cache(file, expected.prompt_tokens)
    assert [one.name for one in tmp_path.iterdir()] == ["rules.cache"]
    other = triform.load(float_bundle)
    fed = runs(other, monkeypatch)
    assert other.load_prompt_cache(file) == expected.prompt_tokens
    found = other.generate(QUESTIONS[1], GREEDY, system=RULES)
    assert found.token_ids == expected.token_ids
    assert found.cached_tokens == (expected.prompt_tokens - 2) // 2 * 2
    assert fed[0] == expected.prompt_tokens - found.cached_tokens
    # Any reader of the format finds what the cache holds.
    stored = decoder._step.cache.stored(expected.prompt_tokens)
    for name, array in load_file(file).items():
        assert (array == stored[name]).all()
    assert len(stored) == 2 * len(decoder.manifest.cache.layers)


@pytest.fixture
def kept(decoder, tmp_path):
    file = tmp_path / "rules.cache"
    decoder.save_prompt_cache(file, decoder.generate(RULES, GREEDY).prompt_tokens)
    return file


def parts(file):
    """The header, and the numbers."""
    data = file.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end]), data[end:]


def write_parts(file, header, numbers):
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write_bytes(len(text).to_bytes(8, "little") + text + numbers)


def test_a_file_that_safetensors_writes_is_read(decoder, kept):
    with safe_open(kept, "np") as file:
        metadata = file.metadata()
    arrays = load_file(kept)
    # It orders the numbers otherwise, so the checksum is another one: of the header, then of the numbers.
    del metadata["crc32"]
    save_file(dict(sorted(arrays.items())), kept, metadata)
    header, numbers = parts(kept)
    checksum = zlib.crc32(numbers, zlib.crc32(json.dumps(header, sort_keys=True).encode()))
    write_parts(kept, {**header, "__metadata__": {**metadata, "crc32": str(checksum)}}, numbers)
    assert decoder.load_prompt_cache(kept) == int(metadata["length"])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: b"", "it is empty"),
        (lambda data: data[:6], "cut off"),
        (lambda data: data[:100], "cut off"),
        (lambda data: data[:-1], "cut off"),
        (lambda data: data[: len(data) // 2], "cut off"),
        (lambda data: data + b"\0" * 4, "cut off or too long"),
        (lambda data: data[:-5] + bytes([data[-5] ^ 1]) + data[-4:], "checksum differs"),
        (lambda data: b"\xff" * 8 + data[8:], "cut off"),
        (lambda data: data.replace(b'"F32"', b'"F16"', 1), "does not fit the model"),
        (lambda data: data.replace(b'"0.key"', b'"9.key"', 1), "0.key"),
        (lambda data: data.replace(b'"length": "', b'"length": "1', 1), "damaged"),
        (lambda data: (2).to_bytes(8, "little") + b"[]", "not a JSON object"),
        (lambda data: b"PK\x03\x04 some other file, long enough to have a header of some sort", "damaged"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(decoder, kept, damage, message):
    kept.write_bytes(damage(kept.read_bytes()))
    with pytest.raises(InputError, match=r"`prompt_cache` .*rules.cache is damaged") as caught:
        decoder.load_prompt_cache(kept)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_tokens_are_refused(decoder, kept):
    """Those of the vocabulary, too: the numbers are not theirs."""
    header, numbers = parts(kept)
    ids = json.loads(header["__metadata__"]["token_ids"])
    for place in (0, len(ids) // 2, len(ids) - 1):
        other = [*ids[:place], (ids[place] + 1) % decoder.manifest.vocab_size, *ids[place + 1 :]]
        metadata = {**header["__metadata__"], "token_ids": json.dumps(other)}
        write_parts(kept, {**header, "__metadata__": metadata}, numbers)
        with pytest.raises(InputError, match="its checksum differs"):
            decoder.load_prompt_cache(kept)
    write_parts(kept, header, numbers)
    assert decoder.load_prompt_cache(kept) == len(ids)


def test_swapped_buffers_are_refused(decoder, kept):
    header, numbers = parts(kept)
    header["0.key"], header["0.value"] = header["0.value"], header["0.key"]
    write_parts(kept, header, numbers)
    with pytest.raises(InputError, match="its checksum differs"):
        decoder.load_prompt_cache(kept)


def test_another_bundles_file_is_refused(kept, int4_bundle):
    with pytest.raises(InputError, match="another bundle; delete it"):
        triform.load(int4_bundle).load_prompt_cache(kept)


def test_a_file_that_is_not_there(decoder, tmp_path):
    with pytest.raises(InputError, match="nowhere cannot be read"):
        decoder.load_prompt_cache(tmp_path / "nowhere")
    with pytest.raises(InputError, match="generate first"):
        decoder.save_prompt_cache(tmp_path / "new", 5)


def test_what_is_not_run_again_changes_no_bit(real_bundle):
    """Also where activations are rounded to 8 bits, and any difference would be one of a whole rounding."""
    step, generator = triform.load(real_bundle)._step, np.random.default_rng(4)
    for length in (40, 41):
        ids = generator.integers(20, 40_000, length).tolist()
        step.cache.reset()
        expected = step.prefill(ids).copy()
        for common in (1, 2, 7, 20, 21, length - 3, length - 2, length - 1, length):
            step.cache.reset()
            step.prefill([*ids[:common], 5, 6, 7])
            assert (step.prefill(ids) == expected).all()


def test_the_file_of_a_fine_tune_is_refused(kept, decoder):
    """Weights of the same sizes make other keys and values."""
    manifest = decoder.manifest
    name = next(name for name in manifest.files if name.endswith(".data"))
    info = dataclasses.replace(manifest.files[name], sha256="0" * 64)
    other = dataclasses.replace(manifest, files={**manifest.files, name: info})
    assert read_prompt_cache(kept, manifest)[0]
    with pytest.raises(InputError, match="another bundle; delete it"):
        read_prompt_cache(kept, other)


@pytest.mark.parametrize("beyond", [0, 5])
def test_tokens_beyond_the_vocabulary_are_refused(decoder, tmp_path, beyond):
    manifest, path = decoder.manifest, tmp_path / "kept"
    arrays = zeros(manifest, 2)
    write_prompt_cache(path, manifest, [1, manifest.vocab_size - 1], arrays)
    assert read_prompt_cache(path, manifest)[0] == [1, manifest.vocab_size - 1]
    write_prompt_cache(path, manifest, [1, manifest.vocab_size + beyond], arrays)
    with pytest.raises(InputError, match="is damaged"):
        read_prompt_cache(path, manifest)


def zeros(manifest, tokens):
    return {
        f"{index}.{part}": np.zeros((layer.num_key_value_heads, tokens, layer.head_dim), np.float32)
        for index, layer in enumerate(manifest.cache.layers)
        for part in ("key", "value")
    }


def test_no_more_tokens_than_the_context_and_no_fewer_than_one(decoder, tmp_path):
    """In files whose sizes and checksums are right."""
    manifest, path = dataclasses.replace(decoder.manifest, max_length=3), tmp_path / "kept"
    write_prompt_cache(path, manifest, [5, 6, 7], zeros(manifest, 3))
    assert read_prompt_cache(path, manifest)[0] == [5, 6, 7]
    for ids in ([5, 6, 7, 8], []):
        write_prompt_cache(path, manifest, ids, zeros(manifest, len(ids)) if ids else {})
        with pytest.raises(InputError, match="its number of tokens does not match"):
            read_prompt_cache(path, manifest)


def test_the_length_is_that_of_the_tokens(decoder, tmp_path):
    manifest, path = decoder.manifest, tmp_path / "kept"
    write_prompt_cache(path, manifest, [5, 6, 7], zeros(manifest, 3))
    header, numbers = parts(path)
    for length in ("2", "4"):
        metadata = {**header["__metadata__"], "length": length}
        write_parts(path, {**header, "__metadata__": metadata}, numbers)
        with pytest.raises(InputError, match="its number of tokens does not match"):
            read_prompt_cache(path, manifest)
