"""Texts become the tokens that the models' own tokenizers make of them."""

from __future__ import annotations

import itertools
import json

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import GemmaTokenizer

from tests.checkpoints.decoders import byte_level_tokenizer
from tests.checkpoints.gguf_files import CONTROL, NORMAL, USER_DEFINED, byte_vocabulary, words_of_bert
from triform.export.checkpoint.gguf.container import GgufFile
from triform.export.checkpoint.gguf.vocabulary.pre_tokenizers import pre_tokenizer_of
from triform.export.checkpoint.gguf.vocabulary.tokenizer import build_tokenizer, merges_of
from triform.export.samples import texts
from triform.export.tokenization.conversion import difficult_texts
from triform.runtime.errors import ExportError, UnsupportedError


def a_file(tmp_path, arch="llama", keys=None, **values) -> GgufFile:
    found = {f"tokenizer.ggml.{key}": value for key, value in values.items()}
    return GgufFile(tmp_path / "model.gguf", {"general.architecture": arch, **found, **(keys or {})}, {})


def ids(tokenizer, text):
    return tokenizer(text)["input_ids"]


def test_a_whole_word_that_no_merge_leads_to(tmp_path):
    """llama.cpp and Llama 3's tokenizer.json have ignore_merges; " ab" is its one token then, and three without."""
    vocabulary = byte_vocabulary("Ġab")
    del vocabulary["pre"]
    for pre in ("llama-bpe", "tekken", "glm4"):
        found = build_tokenizer(a_file(tmp_path, **vocabulary, pre=pre, add_bos_token=False))
        assert ids(found, " ab") == [259]
    letters = {letter: index for index, letter in enumerate(vocabulary["tokens"])}
    for pre in ("gpt-2", "qwen2", "smollm", "command-r", "deepseek-llm", "deepseek-coder"):
        found = build_tokenizer(a_file(tmp_path, **vocabulary, pre=pre))
        assert ids(found, " ab") == [letters["Ġ"], letters["a"], letters["b"]]


# By name of a pre-tokenizer: pieces, by hand from the patterns in the models' own tokenizer.json.
@pytest.mark.parametrize(
    ("pre", "text", "pieces"),
    [
        ("llama-bpe", "It'S 12345 x\n\n y", ["It", "'S", " ", "123", "45", " x", "\n\n", " y"]),
        ("qwen2", "It'S 12345 x\n\n y", ["It", "'S", " ", "1", "2", "3", "4", "5", " x", "\n\n", " y"]),
        ("gpt-2", "It'S 12345 x\n\n y", ["It", "'", "S", " 12345", " x", "\n\n", " y"]),
        ("smollm", "It's 123 x\n\n y", ["It", "'s", " ", "1", "2", "3", " x", "\n\n", " y"]),
        ("falcon", "a+b 1234", ["a", "+", "b", " ", "123", "4"]),
        ("tekken", "helloWorld 12", ["hello", "World", " ", "1", "2"]),
        ("gpt-4o", "helloWORLD's 1234", ["hello", "WORLD's", " ", "123", "4"]),
        ("deepseek-v3", "a 1234 日本x", ["a", " ", "123", "4", " ", "日本", "x"]),
        ("deepseek-coder", "if x1:\n", ["if", " x", "1", ":", "\n"]),
        ("superbpe", "in 12345", ["in ", "12", "345"]),
        ("bloom", "Hi there, you", ["Hi", " there", ",", " you"]),
    ],
)
def test_pieces(tmp_path, pre, text, pieces):
    way = pre_tokenizer_of(a_file(tmp_path, pre=pre))
    from tokenizers import Regex

    cut = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in way.patterns])
    assert [piece for piece, _ in cut.pre_tokenize_str(text)] == pieces


def test_every_pre_tokenizer_has_patterns_that_compile(tmp_path):
    from triform.export.checkpoint.gguf.vocabulary import pre_tokenizers as ours

    for name in ours.names():
        vocabulary = {**byte_vocabulary(), "pre": name}
        found = build_tokenizer(a_file(tmp_path, **vocabulary, add_bos_token=False))
        text = "Any text, 12 345 of it:\n\n  “日本” it's…"
        assert found.decode(ids(found, text)) == text


def test_an_unknown_pre_tokenizer(tmp_path):
    with pytest.raises(UnsupportedError, match=r"pre-tokenizer 'fancy' \(tokenizer.ggml.pre\)"):
        build_tokenizer(a_file(tmp_path, **{**byte_vocabulary(), "pre": "fancy"}))
    with pytest.raises(UnsupportedError, match="tokenizer of type 'rwkv'"):
        build_tokenizer(a_file(tmp_path, **{**byte_vocabulary(), "model": "rwkv"}))
    with pytest.raises(ExportError, match=r"tokenizer.ggml.new_thing"):
        build_tokenizer(a_file(tmp_path, **byte_vocabulary(), new_thing=1))


def test_a_trained_vocabulary_reads_as_its_tokenizer(tmp_path):
    """Byte-level BPE against the tokenizers package, on difficult texts."""
    trained = byte_level_tokenizer(700)
    model = trained.get_vocab()
    tokens = sorted(model, key=model.get)
    special = 6

    merges = [" ".join(pair) for pair in json.loads(trained.to_str())["model"]["merges"]]
    kinds = [CONTROL] * special + [NORMAL] * (len(tokens) - special)
    file = a_file(
        tmp_path,
        model="gpt2",
        pre="gpt-2",
        tokens=tokens,
        token_type=kinds,
        merges=merges,
        bos_token_id=1,
        eos_token_id=2,
    )
    found = build_tokenizer(file)
    for text in (*difficult_texts(), "<s>a<|end|> b", texts.read_text("evaluation")):
        assert ids(found, text) == trained.encode(text).ids
        assert found.decode(ids(found, text)) == text or "<" in text


def sentencepiece_vocabulary():
    """Pieces with scores, bytes for the rest, as sentencepiece trains them with BPE: scores fall with the rank."""
    trainer = trainers.BpeTrainer(vocab_size=500, show_progress=False, special_tokens=["<unk>", "<s>", "</s>"])
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.train_from_iterator([texts.read_text("calibration").replace("\n", " ")], trainer)
    vocabulary = tokenizer.get_vocab()
    pieces = sorted(vocabulary, key=vocabulary.get)[3:]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces, "<|user|>"]
    kinds = [2, CONTROL, CONTROL, *[6] * 256, *[NORMAL] * len(pieces), USER_DEFINED]
    scores = [0.0] * 259 + [-float(index) for index in range(len(pieces))] + [0.0]
    return tokens, kinds, scores


def spm(tokens, scores, text, *, prefix=True):
    """sentencepiece's BPE, literally: merge the neighbours whose token has the highest score, the leftmost first."""
    known = {token: index for index, token in enumerate(tokens)}
    symbols = list(("▁" if prefix else "") + text.replace(" ", "▁"))
    while True:
        pairs = [
            (-scores[known[left + right]], at)
            for at, (left, right) in enumerate(itertools.pairwise(symbols))
            if left + right in known
        ]
        if not pairs:
            break
        at = min(pairs)[1]
        symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
    found = []
    for symbol in symbols:
        found += [known[symbol]] if symbol in known else [known[f"<0x{byte:02X}>"] for byte in symbol.encode()]
    return found


@pytest.mark.parametrize("prefix", [True, False])
def test_sentencepiece(tmp_path, prefix):
    tokens, kinds, scores = sentencepiece_vocabulary()
    file = a_file(
        tmp_path, model="llama", tokens=tokens, token_type=kinds, scores=scores, bos_token_id=1, eos_token_id=2,
        unknown_token_id=0, add_bos_token=True, add_space_prefix=prefix,
    )  # fmt: skip
    found = build_tokenizer(file)
    for text in ("a house by the sea", "  two  spaces", "é 日本 \n\t x", texts.read_text("evaluation")[:300]):
        assert ids(found, text) == [1, *spm(tokens, scores, text, prefix=prefix)]
        assert found.decode(ids(found, text), skip_special_tokens=True) == text
    assert len(tokens) - 1 in ids(found, "x<|user|>y")


def likeliest(scores, text):
    """The pieces with the largest sum of scores, of all ways to cut a text."""
    best = {0: (0.0, [])}
    for end in range(1, len(text) + 1):
        ways = [
            (best[start][0] + scores[text[start:end]], [*best[start][1], text[start:end]])
            for start in range(end)
            if start in best and text[start:end] in scores
        ]
        if ways:
            best[end] = max(ways)
    return best[len(text)][1]


@pytest.mark.parametrize("extra", [True, False], ids=["extra spaces go", "extra spaces stay"])
def test_unigram(tmp_path, extra):
    scores = {
        "▁": -2.0, "s": -3.1, "e": -3.2, "a": -3.3, "h": -3.4, "el": -5.5, "l": -4.2, "sea": -7.0, "▁s": -4.4,
        "ea": -5.1, "she": -8.1, "▁she": -8.3, "ell": -8.0, "lls": -9.1,
    }  # fmt: skip
    pieces = list(scores)
    file = a_file(
        tmp_path, "bert", model="t5", tokens=["<s>", "<pad>", "</s>", "<unk>", *pieces],
        token_type=[CONTROL] * 3 + [2] + [NORMAL] * len(pieces), scores=[0.0] * 4 + list(scores.values()),
        bos_token_id=0, eos_token_id=2, unknown_token_id=3, padding_token_id=1, add_bos_token=True,
        remove_extra_whitespaces=extra,
    )  # fmt: skip
    found = build_tokenizer(file)
    for text in ("sea shells", " she  sees ", "allease"):
        clean = " ".join(text.split()) if extra else text
        # A text that begins with a space gets no other one.
        expected = likeliest(scores, ("" if clean.startswith(" ") else "▁") + clean.replace(" ", "▁"))
        assert found.convert_ids_to_tokens(ids(found, text)) == ["<s>", *expected, "</s>"]
    assert ids(found, "sxa") == [0, *(4 + pieces.index(p) for p in ["▁s"]), 3, 4 + pieces.index("a"), 2]


def test_phi3_strips_what_stands_behind_its_added_tokens(tmp_path):
    """Its tokenizer.json has rstrip for all of them but three, and </s> among them, which is no control token."""
    tokens, kinds, scores = sentencepiece_vocabulary()
    kinds[2] = USER_DEFINED
    file = a_file(tmp_path, "phi3", model="llama", tokens=tokens, token_type=kinds, scores=scores, add_bos_token=False)
    found = build_tokenizer(file)
    behind = [tokens.index("▁"), tokens.index("x")]
    for text, token in (("</s>  x", 2), ("<|user|> x", len(tokens) - 1)):
        assert ids(found, text) == [token, *behind]
    assert ids(found, "<s> x") == [1, tokens.index("▁▁"), behind[1]]


def test_gemma_4_is_gemma_with_merges_that_are_listed(tmp_path):
    letters = [
        *"▁abcdehlo.\n",
        "he",
        "ll",
        "hell",
        "hello",
        "▁he",
        "▁▁",
        "\n\n",
        "<|turn>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
    ]
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", *letters]
    merges = [("l", "l"), ("h", "e"), ("▁", "he"), ("he", "ll"), ("hell", "o"), ("▁", "▁"), ("\n", "\n")]
    kinds = [CONTROL] * 4 + [6 if token.startswith("<0x") else NORMAL for token in letters]
    kinds[tokens.index("<|turn>")] = CONTROL
    file = a_file(
        tmp_path, "gemma4", model="gemma4", tokens=tokens, token_type=kinds, scores=[-1000.0] * len(tokens),
        merges=[" ".join(pair) for pair in merges], bos_token_id=2, eos_token_id=1, padding_token_id=0,
        unknown_token_id=3, add_bos_token=True, add_space_prefix=False,
    )  # fmt: skip
    vocabulary = {token: index for index, token in enumerate(tokens)}
    original = GemmaTokenizer(vocab=vocabulary, merges=merges, extra_special_tokens=["<|turn>"])
    found = build_tokenizer(file)
    for text in ("hello hello", " hell  a\n\n\nb", "", "<|turn>hello\n", "aßc 好.", "  \n "):
        # The file asks for the token of the beginning; made of a vocabulary alone, the class adds none.
        assert ids(found, text) == [2, *ids(original, text)], text
        assert found.decode(ids(found, text)[1:]) == original.decode(ids(original, text))


def test_merges_lead_to_higher_scores_first():
    tokens, scores = ["a", "b", "c", "ab", "bc", "abc"], [0, 0, 0, -2, -1, -3]
    # ab from a and b; bc before it; abc from ab and c, or from a and bc.
    assert merges_of(tokens, scores) == [("b", "c"), ("a", "b"), ("a", "bc"), ("ab", "c")]


@pytest.mark.parametrize(
    ("words", "text", "expected"),
    [
        (words_of_bert(), "Sailing, a ship.", ["[CLS]", "sail", "##ing", ",", "a", "ship", ".", "[SEP]"]),
        ([*words_of_bert(), "▁Sail"], "Sailing sail", ["[CLS]", "Sail", "##ing", "sail", "[SEP]"]),
        (words_of_bert(), "a😀 b", ["[CLS]", "[UNK]", "b", "[SEP]"]),
    ],
    ids=["small letters", "capitals stay where the vocabulary has any", "unknown words"],
)
def test_word_pieces(tmp_path, words, text, expected):
    kinds = [CONTROL] * 5 + [NORMAL] * (len(words) - 5)
    file = a_file(
        tmp_path, "bert", model="bert", tokens=words, token_type=kinds, bos_token_id=2, seperator_token_id=3,
        unknown_token_id=1, padding_token_id=0, mask_token_id=4,
    )  # fmt: skip
    found = build_tokenizer(file)
    assert found.convert_ids_to_tokens(ids(found, text)) == expected
    pair = found("a", "b")
    assert found.convert_ids_to_tokens(pair["input_ids"]) == ["[CLS]", "a", "[SEP]", "b", "[SEP]"]
    assert pair["token_type_ids"] == [0, 0, 0, 1, 1]


@pytest.mark.parametrize(
    ("keys", "pre", "expected"),
    [
        ({}, "gpt-2", [259]),
        ({"add_bos_token": True}, "gpt-2", [0, 259]),
        ({"add_bos_token": True, "add_eos_token": True}, "gpt-2", [0, 259, 1]),
        ({}, "llama-bpe", [0, 259]),
        ({"add_bos_token": False}, "llama-bpe", [259]),
    ],
)
def test_what_stands_around_a_text(tmp_path, keys, pre, expected):
    vocabulary = {**byte_vocabulary("Ġab"), "pre": pre, "merges": ["Ġ t", "Ġ a", "Ġa b"]}
    vocabulary["tokens"].append("Ġa")
    vocabulary["token_type"].append(NORMAL)
    assert ids(build_tokenizer(a_file(tmp_path, **vocabulary, **keys)), " ab") == expected


def test_control_tokens_are_found_in_texts(tmp_path):
    vocabulary = byte_vocabulary("<|call|>", "<tool>")
    vocabulary["token_type"][-2:] = [CONTROL, USER_DEFINED]
    found = build_tokenizer(a_file(tmp_path, **vocabulary))
    assert ids(found, "<|call|><tool>") == [259, 260]
    assert found.decode([259, 260], skip_special_tokens=True) == "<tool>"


def test_chat_templates(tmp_path):
    def templates(**keys):
        keys = {f"tokenizer.chat_template{name}": text for name, text in keys.items()}
        return build_tokenizer(a_file(tmp_path, keys=keys, **byte_vocabulary())).chat_template

    assert templates() is None
    assert templates(**{"": "T"}) == "T"
    assert templates(**{"": "T", ".tool_use": "U", ".rag": "R"}) == {"default": "T", "tool_use": "U", "rag": "R"}


def test_a_vocabulary_that_does_not_fit(tmp_path):
    for changes, message in (
        ({"tokens": []}, "no vocabulary"),
        ({"bos_token_id": 999}, "bos_token_id = 999, but 259 tokens"),
        ({"merges": None}, "no merges"),
        ({"token_type": [1]}, "259 tokens but 1 kinds"),
    ):
        vocabulary = {key: value for key, value in {**byte_vocabulary(), **changes}.items() if value is not None}
        with pytest.raises(ExportError, match=message):
            build_tokenizer(a_file(tmp_path, **vocabulary))
    twice = byte_vocabulary("a")
    with pytest.raises(ExportError, match="the token 'a' twice"):
        build_tokenizer(a_file(tmp_path, **twice))
