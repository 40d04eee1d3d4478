"""Every tokenizer becomes a tokenizer.json that gives the original's ids, or is refused."""

from __future__ import annotations

import random
import unicodedata

import numpy as np
import pytest
import sentencepiece
import torch
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import (
    AlbertConfig,
    AutoTokenizer,
    BertConfig,
    BertGenerationTokenizer,
    ByT5Tokenizer,
    EsmTokenizer,
    PreTrainedTokenizerFast,
    RobertaConfig,
    SiglipTokenizer,
    T5Config,
)
from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy

from tests.checkpoints.decoders import byte_level_tokenizer
from tests.checkpoints.encoder_families import build_encoder
from triform.export.checkpoint.processors import load_tokenizer, save_tokenizer
from triform.export.checkpoint.source import Source
from triform.export.options import ExportOptions
from triform.export.pipeline import export
from triform.export.samples import texts
from triform.export.tokenization import conversion as tokenizer_conversion
from triform.export.tokenization.conversion import convert, difficult_texts, first_difference
from triform.runtime.errors import ExportError
from triform.runtime.opening import load_encoder

AMINO_ACIDS = [
    *("<cls>", "<pad>", "<eos>", "<unk>"), *"LAGVSERTIDPKQNFYMHWCXBUZO.-", *("<null_1>", "<mask>")
]  # fmt: skip
PROTEIN = "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ"


def random_texts(count):
    """Texts of characters from everywhere, so that not only the exporter's own corpus is compared."""
    generator = random.Random(0)
    places = ((0x20, 0x7E), (0x00, 0x17F), (0x300, 0x36F), (0x590, 0x6FF), (0x2000, 0x206F), (0x4E00, 0x4EFF),
              (0x1F300, 0x1F6FF))  # fmt: skip
    return [
        "".join(chr(generator.randint(*generator.choice(places))) for _ in range(generator.randint(1, 60)))
        for _ in range(count)
    ]


def assert_same(rebuilt: Tokenizer, original, more_texts):
    for text in (*difficult_texts(), *more_texts, PROTEIN):
        assert rebuilt.encode(text).ids == original(text, verbose=False)["input_ids"], repr(text[:60])


@pytest.fixture
def esm(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(AMINO_ACIDS))
    return EsmTokenizer(str(tmp_path / "vocab.txt"))


def test_difficult_texts_are_difficult():
    whole = "".join(difficult_texts())
    for wanted in ("\U0001f469\u200d", "日本", "שלום", "e\u0301", "\x1c", "\u200b", "\x00", "\u2028", "\u3000"):
        assert wanted in whole
    assert {"", " ", "\n"} <= set(difficult_texts())
    assert max(len(text) for text in difficult_texts()) == 100_000


def test_letters_of_proteins(esm):
    fast = convert(esm, "protein")
    rebuilt = fast.backend_tokenizer
    letters = [AMINO_ACIDS.index(letter) for letter in PROTEIN]
    assert rebuilt.encode(PROTEIN).ids == [0, *letters, 2]
    assert rebuilt.encode("MK<mask>T").ids == [0, 20, 15, 32, 11, 2] == esm("MK<mask>T")["input_ids"]
    assert rebuilt.encode("MK", "TA").ids == esm("MK", "TA")["input_ids"]
    assert (fast.pad_token_id, fast.mask_token_id, fast.cls_token_id, fast.eos_token_id) == (1, 32, 0, 2)
    assert_same(rebuilt, esm, random_texts(300))


def test_bytes():
    original = ByT5Tokenizer(extra_ids=10)
    fast = convert(original, "bytes")
    assert fast.backend_tokenizer.encode("é").ids == [3 + 0xC3, 3 + 0xA9, 1]
    assert fast.backend_tokenizer.decode([3 + 0xC3, 3 + 0xA9, 1]) == "é"
    assert len(fast) == len(original) == 256 + 3 + 10
    assert_same(fast.backend_tokenizer, original, random_texts(300))


def trained_sentencepiece(folder, **options):
    (folder / "text.txt").write_text(texts.read_text("calibration"), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text.txt"), model_prefix=str(folder / "spiece"), vocab_size=300, minloglevel=2, **options
    )
    return folder / "spiece.model"


def test_sentencepiece_without_a_fast_version(tmp_path):
    path = trained_sentencepiece(tmp_path, pad_id=0, eos_id=1, bos_id=2, unk_id=3)
    original = BertGenerationTokenizer(str(path))
    # The tokenizers package loses combining marks on some characters, in what transformers itself converts too.
    plain = ["".join(one for one in text if unicodedata.category(one) != "Mn") for text in random_texts(300)]
    assert_same(convert(original, "generation").backend_tokenizer, original, plain)


def test_sentencepiece_of_texts_without_punctuation(tmp_path):
    path = trained_sentencepiece(tmp_path, pad_id=0, eos_id=1, bos_id=2, unk_id=3)
    for lower in (True, False):
        original = SiglipTokenizer(str(path), do_lower_case=lower)
        found = convert(original, "siglip").backend_tokenizer
        for text in ("The Ferry, LEFT; the  harbor!", "A-B_c (d)", "ÀÉ Ωmega", "..."):
            assert found.encode(text).ids == original(text)["input_ids"], (lower, text)


class _Backwards(EsmTokenizer):
    """Almost what can be rebuilt: long words come out otherwise."""

    def _tokenize(self, text, **_):
        return text.split() if len(text) < 20 else text.split()[::2]


def test_a_tokenizer_that_cannot_be_rebuilt_is_refused(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(AMINO_ACIDS))
    with pytest.raises(ExportError, match=r"a _Backwards, cannot be written as tokenizer\.json: rebuilt, it reads '"):
        convert(_Backwards(str(tmp_path / "vocab.txt")), "x")


def test_what_is_written_is_compared_with_the_original(checkpoint, tmp_path, monkeypatch):
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    monkeypatch.setattr(tokenizer_conversion, "_compact_merges", lambda model: model["merges"].pop(0))
    with pytest.raises(ExportError, match=r"^the written tokenizer\.json gives other ids for "):
        save_tokenizer(tokenizer, tmp_path)


# Where transformers' own fast tokenizers depart from the originals: control characters and unassigned ones.
def ordinary(text):
    return not any((character < " " and character not in "\t\n\r") or character > "\ud7ff" for character in text)


def test_vocab_txt_alone(tmp_path):
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *"abcdefghijklmnopqrstuvwxyz.,'!é日",
        "##s",
        "he",
        "##ll",
        "##o",
    ]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    BertConfig(vocab_size=len(words)).save_pretrained(tmp_path)
    tokenizer = load_tokenizer(Source("x", tmp_path, tmp_path, tmp_path))
    folder = tmp_path / "out"
    folder.mkdir()
    save_tokenizer(tokenizer, folder)
    written = Tokenizer.from_file(str(folder / "tokenizer.json"))
    original = BertTokenizerLegacy(str(tmp_path / "vocab.txt"))
    compared = [text for text in difficult_texts() if ordinary(text)]
    assert len(compared) > 15
    for text in compared:
        assert written.encode(text).ids == original(text)["input_ids"], repr(text)


def test_spiece_model_alone(tmp_path):
    path = trained_sentencepiece(tmp_path, pad_id=0, eos_id=1, bos_id=-1, unk_id=2)
    T5Config(vocab_size=400, d_model=16).save_pretrained(tmp_path)
    tokenizer = load_tokenizer(Source("x", tmp_path, tmp_path, tmp_path))
    folder = tmp_path / "out"
    folder.mkdir()
    save_tokenizer(tokenizer, folder)
    written = Tokenizer.from_file(str(folder / "tokenizer.json"))
    original = sentencepiece.SentencePieceProcessor(model_file=str(path))
    for text in (text for text in difficult_texts() if ordinary(text)):
        assert written.encode(text).ids == [*original.encode(text), 1], repr(text)


def test_protein_model_from_folder_to_embedding(esm, tmp_path):
    model = build_encoder("esm", vocab_size=len(AMINO_ACIDS), pad_token_id=1, mask_token_id=32)
    folder = tmp_path / "protein"
    model.save_pretrained(folder)
    esm.save_pretrained(folder)
    bundle = tmp_path / "bundle"
    export(str(folder), bundle, ExportOptions(quantize="none"))
    encoder = load_encoder(bundle)
    assert encoder.reader().read(["MK<mask>T"])[0].ids == esm("MK<mask>T")["input_ids"]
    proteins = [PROTEIN, "MKWL", "AAAA<mask>G"]
    found = list(encoder.step.in_batches(encoder.reader().read(proteins), ["last_hidden_state"]))
    model.set_attn_implementation("eager")
    for protein, (states,) in zip(proteins, found, strict=True):
        with torch.no_grad():
            expected = model(**esm(protein, return_tensors="pt")).last_hidden_state[0].numpy()
        assert states.shape == expected.shape
        assert np.abs(states - expected).max() <= 5e-4 * np.abs(expected).max()


def test_difference_names_the_text(esm):
    rebuilt = convert(esm, "protein").backend_tokenizer
    assert first_difference(esm, rebuilt) is None
    rebuilt.pre_tokenizer = None
    assert first_difference(esm, rebuilt) is not None


def test_pairs_are_compared():
    """Two tokenizers that read single texts alike, and pairs not."""

    def tokenizer(pair):
        made = byte_level_tokenizer()
        made.post_processor = TemplateProcessing(single="<s> $A", pair=pair, special_tokens=[("<s>", 0)])
        return made

    original = PreTrainedTokenizerFast(tokenizer_object=tokenizer("<s> $A <s> $B"))
    assert first_difference(original, tokenizer("<s> $A <s> $B")) is None
    assert first_difference(original, tokenizer("<s> $A $B")).startswith("(")


@pytest.mark.parametrize(
    ("config", "file", "expected"),
    [
        (AlbertConfig(), "vocab.txt", "AlbertTokenizer reads spiece.model or tokenizer.json"),
        (T5Config(), "vocab.json", "T5Tokenizer reads spiece.model or tokenizer.json"),
        (BertConfig(), "spiece.model", "BertTokenizer reads vocab.txt or tokenizer.json"),
        (RobertaConfig(), "vocab.txt", "RobertaTokenizer reads vocab.json or merges.txt or tokenizer.json"),
    ],
)
def test_a_tokenizer_without_its_own_file_is_refused(config, file, expected, tmp_path):
    """transformers makes one that takes every text for unknown."""
    config.save_pretrained(tmp_path)
    (tmp_path / file).write_text('{"[UNK]": 0, "word": 1}' if file.endswith("json") else "[UNK]\nword\n")
    with pytest.raises(ExportError, match=expected):
        load_tokenizer(Source("x", tmp_path, tmp_path, tmp_path))
