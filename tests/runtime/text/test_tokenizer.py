"""Streaming text equals decoding the whole, and chat templates equal transformers'."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from tests.checkpoints.decoders import byte_level_tokenizer
from triform.runtime.decoder.chat_template import render_chat
from triform.runtime.errors import BundleError, InputError
from triform.runtime.text.detokenizer import IncrementalDetokenizer
from triform.runtime.text.tokenizer import JsonTokenizer, load_tokenizer

BYTE_LEVEL = byte_level_tokenizer()
# Any text may spell a special token, such as <s>, whose id is not shown.
BYTE_LEVEL.encode_special_tokens = True


def byte_fallback_tokenizer():
    """SentencePiece as Llama 2 has it: a leading space stripped, bytes for what no piece spells."""
    vocab = {f"<0x{byte:02X}>": byte for byte in range(256)}
    for piece in ["\u2581", "\u2581the", "a", "e", "\u2581\u00e9", "\u4e2d", "t", "h", "\u2581a"]:
        vocab[piece] = len(vocab)
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], byte_fallback=True))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


BYTE_FALLBACK = byte_fallback_tokenizer()


def streamed(tokenizer, ids):
    detokenizer = IncrementalDetokenizer(tokenizer)
    return [*(detokenizer.push(token) for token in ids), detokenizer.flush()]


@settings(max_examples=300)
@given(st.text(max_size=40))
@example("<s>")
def test_pieces_of_any_text_join_to_it(text):
    pieces = streamed(BYTE_LEVEL, BYTE_LEVEL.encode(text).ids)
    assert "".join(pieces) == text


@settings(max_examples=300)
@given(st.lists(st.integers(0, BYTE_LEVEL.get_vocab_size() - 1), max_size=30))
def test_pieces_of_random_byte_level_ids_join_to_the_whole(ids):
    assert "".join(streamed(BYTE_LEVEL, ids)) == BYTE_LEVEL.decode(ids)


@settings(max_examples=300)
@given(st.text(alphabet="a e\u00e9\u4e2dth\U0001f600\u0646", max_size=20))
def test_pieces_of_sentencepiece_text_join_to_the_whole(text):
    ids = BYTE_FALLBACK.encode("\u2581" + text.replace(" ", "\u2581")).ids
    assert "".join(streamed(BYTE_FALLBACK, ids)) == BYTE_FALLBACK.decode(ids)


def test_no_piece_ends_inside_a_character():
    text = "na\u00efve \U0001f469\u200d\U0001f680 \u4e2d\u6587"
    pieces = streamed(BYTE_LEVEL, BYTE_LEVEL.encode(text).ids)
    assert all("\N{REPLACEMENT CHARACTER}" not in piece for piece in pieces)
    assert len([piece for piece in pieces if piece]) > 5


SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    "You are a helpful AI assistant<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + "
    "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + "
    "message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}"
    "{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
ALTERNATING = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% else %}{% set rest = "
    "messages %}{% endif %}{% for message in rest %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{% if message.content.startswith('#') %}{% continue %}"
    "{% endif %}[{{ message.role.upper() }}] {{ message['content'].strip() | tojson }}{{ eos_token }}{% endfor %}"
)
BLOCKS = """{%- for message in messages %}
    {%- if message.role == "user" %}
        {{- "U: " ~ message.content }}
    {%- else %}
  {{ message.role }}: {{ message.content }}
    {% endif %}
{%- endfor %}
{% if add_generation_prompt %}
A:
{% endif %}
"""
CONVERSATIONS = [
    [{"role": "user", "content": "Hello <b>\u00e9</b> & 'you'"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": " Hi "}],
    [{"role": "user", "content": "1"}, {"role": "assistant", "content": "#2"}, {"role": "user", "content": "3"}],
]


@pytest.mark.parametrize("messages", CONVERSATIONS)
@pytest.mark.parametrize("template", [SMOLLM2, LLAMA3, ALTERNATING, BLOCKS])
def test_chat_templates_equal_transformers(template, messages):
    reference = PreTrainedTokenizerFast(tokenizer_object=BYTE_LEVEL, bos_token="<s>", eos_token="<|end|>")
    expected = reference.apply_chat_template(
        messages, chat_template=template, tokenize=False, add_generation_prompt=True
    )
    assert render_chat(template, messages, {"bos_token": "<s>", "eos_token": "<|end|>"}) == expected


def test_a_template_that_refuses_says_why():
    with pytest.raises(InputError, match="roles must alternate"):
        render_chat(ALTERNATING, [{"role": "assistant", "content": "x"}], {"bos_token": "", "eos_token": ""})


def test_settings_of_a_tokenizers_training_cut_and_fill_up_nothing(tmp_path):
    tokenizer = Tokenizer.from_str(BYTE_LEVEL.to_str())
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=40)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    text = "the harbor at night"
    expected = BYTE_LEVEL.encode(text).ids
    assert 3 < len(expected) < 40
    loaded = load_tokenizer(tmp_path / "tokenizer.json")
    assert loaded.encode(text).ids == expected
    assert loaded.encode_batch([text, "a"])[0].ids == expected


@pytest.mark.parametrize(
    ("before", "after"), [((), ()), ((1,), ()), ((), (2,)), ((1, 0), (2, 2)), ((2,), (2,))], ids=str
)
def test_ids_put_around_a_text_are_its_only_special_ones(tmp_path, before, after):
    BYTE_LEVEL.save(str(tmp_path / "tokenizer.json"))
    loaded = load_tokenizer(tmp_path / "tokenizer.json")
    bare = loaded.encode("the harbor", add_special_tokens=False).ids
    loaded.surround(before, after)
    assert loaded.encode("the harbor").ids == [*before, *bare, *after]
    assert loaded.encode("the harbor", add_special_tokens=False).ids == bare
    # What is cut makes room for them.
    loaded.enable_truncation(5)
    assert loaded.encode("the harbor").ids == [*before, *bare[: 5 - len(before) - len(after)], *after]


def test_special_tokens_have_no_text_unless_it_is_asked_for(tmp_path):
    BYTE_LEVEL.save(str(tmp_path / "tokenizer.json"))
    loaded = load_tokenizer(tmp_path / "tokenizer.json")
    special = loaded.token_to_id("<s>")
    ids = [special, *loaded.encode("the", add_special_tokens=False).ids]
    assert loaded.decode(ids) == loaded.decode(ids, skip_special_tokens=True) == "the"
    assert loaded.decode(ids, skip_special_tokens=False) == "<s>the"


@pytest.mark.parametrize("length", [199, 200, 201, 500])
def test_a_failure_names_the_file_and_quotes_200_characters(tmp_path, length):
    class Broken:
        def encode(self, sequence):
            raise ValueError("x" * length)

    tokenizer = JsonTokenizer(Broken(), tmp_path / "tokenizer.json")
    quoted = "x" * length if length <= 200 else "x" * 199 + "\u2026"
    with pytest.raises(BundleError) as raised:
        tokenizer.encode("a")
    assert str(raised.value) == f"{tmp_path / 'tokenizer.json'} fails ({quoted}); export the model again"


def test_half_of_a_surrogate_pair_is_refused():
    """Wherever a text comes from: a stop sequence or a prompt of a transcription is looked at by nobody before."""
    tokenizer = JsonTokenizer(byte_level_tokenizer(), Path("tokenizer.json"))
    with pytest.raises(InputError, match=r"^the text 'ab\\ud800' is not valid Unicode at character 3$"):
        tokenizer.encode("ab\ud800")
