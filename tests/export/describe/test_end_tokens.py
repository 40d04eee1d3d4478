"""An answer ends where anything in the checkpoint says so: generation config, config, tokenizer, chat templates."""

from __future__ import annotations

import json

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tests.checkpoints.decoders import byte_level_tokenizer, llama_folder
from triform.export.checkpoint.loading import load_checkpoint, read_config
from triform.export.checkpoint.resolve import find_checkpoint
from triform.export.describe.end_tokens import end_tokens, template_ends

# Ids of `byte_level_tokenizer`: <pad> 0, <s> 1, <|end|> 2, <|user|> 3, <|assistant|> 4, <|system|> 5.
CHATML = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content | trim }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def tokenizer_with(template, eos="<s>"):
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=byte_level_tokenizer(), bos_token="<s>", eos_token=eos, pad_token="<pad>"
    )
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize(
    ("template", "ends"),
    [
        (CHATML, [2]),
        # Llama 2: a space before the end, and a beginning behind it.
        (
            "{% for m in messages %}{% if m.role == 'user' %}<s>[INST] {{ m.content }} [/INST]{% else %}"
            " {{ m.content }} {{ eos_token }}{% endif %}{% endfor %}",
            [1],
        ),
        # Harmony: the last message ends otherwise than those before it.
        (
            "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}"
            "{{ '<|system|>' if loop.last and m.role == 'assistant' else '<|end|>' }}{% endfor %}",
            [5],
        ),
        # GLM: an answer ends where the user begins.
        ("{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}", [3]),
        # A template that wants a system message, and one that wants parts.
        (
            "{% if messages[0].role != 'system' %}{{ raise_exception('no system') }}{% endif %}"
            "{% for m in messages %}{{ m.content }}<|end|>{% endfor %}",
            [2],
        ),
        ("{% for m in messages %}{{ m.content[0].text }}<|end|>{% endfor %}", [2]),
        # Vicuna's and Alpaca's kind: no token.
        ("{% for m in messages %}\n### {{ m.role }}: {{ m.content }}{% endfor %}", []),
        ({"default": CHATML, "tool_use": "{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"}, [2, 1]),
        ("{{ raise_exception('never') }}", []),
        (None, []),
    ],
)
def test_the_token_behind_an_answer(template, ends):
    assert template_ends(tokenizer_with(template)) == ends


def ends_of(folder):
    source = find_checkpoint(str(folder))
    from transformers import AutoModelForCausalLM

    found = end_tokens(load_checkpoint(source, read_config(source), AutoModelForCausalLM))
    return {token.text: token.named_by for token in found}, [token.id for token in found]


def test_everything_that_names_an_end_counts(tmp_path):
    # The model's files know the base model's end, its tokenizer and its template another.
    folder = llama_folder(tmp_path / "checkpoint", eos_token_id=3)
    assert ends_of(folder) == (
        {"<|user|>": ["generation config", "config"], "<|end|>": ["tokenizer", "chat template"]},
        [3, 2],
    )
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.eos_token, tokenizer.chat_template = "<s>", tokenizer.chat_template.replace("<|end|>", "<|system|>")
    tokenizer.save_pretrained(folder)
    change_json(folder / "generation_config.json", eos_token_id=[4, 3])
    assert ends_of(folder)[1] == [4, 3, 1, 5]


def test_an_ordinary_word_of_config_is_no_end(tmp_path):
    folder = llama_folder(tmp_path / "checkpoint", chat=False)
    change_json(folder / "config.json", eos_token_id=[90, 5])
    assert ends_of(folder) == ({"<|end|>": ["generation config", "tokenizer"], "<|system|>": ["config"]}, [2, 5])


def test_what_config_does_not_say_is_not_filled_in(tmp_path):
    folder = llama_folder(tmp_path / "checkpoint", chat=False)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.eos_token = "<|user|>"
    tokenizer.save_pretrained(folder)
    for name in ("config.json", "generation_config.json"):
        change_json(folder / name, eos_token_id=None)
    # LlamaConfig would say 2, which is Llama's own.
    assert ends_of(folder) == ({"<|user|>": ["tokenizer"]}, [3])


def change_json(path, **entries):
    content = {**json.loads(path.read_text()), **entries}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
