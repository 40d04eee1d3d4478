"""A small tokenizer of each family of models with an encoder and a decoder, trained on the exporter's texts."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import sentencepiece
import transformers
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers.convert_slow_tokenizer import generate_merges
from transformers.models.m2m_100.tokenization_m2m_100 import FAIRSEQ_LANGUAGE_CODES

from triform.export.samples import texts
from triform.export.tokenization.seq2seq_pieces import parse

FAIRSEQ = ["<s>", "<pad>", "</s>", "<unk>"]
# What the exporter's English texts have no letters for.
SENTENCES = (
    "Der Zug nach Köln fährt um 9.30 Uhr ab; die Bäckerei öffnet erst um zehn, „sagte“ er müde.",
    "Größe, Straße, Übung: wer über Brücken geht, hört die Züge nicht mehr.",
    "Поезд в Москву отходит в десять часов; мы ещё успеем купить хлеб и молоко.",
    "«Где вы были вчера вечером?» – спросила она, закрывая окно.",
)
MUSTC = [f"<lang:{code}>" for code in ("pt", "fr", "ru", "nl", "ro", "it", "es", "de")]


class Trained:
    """Sentencepiece models and byte-level merges, each trained once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "text.txt").write_text(
            texts.read_text("calibration") + "\n" + texts.read_text("evaluation"), encoding="utf-8"
        )
        self.plain = self._sentencepiece("plain", vocab_size=400)
        self.target = self._sentencepiece("target", vocab_size=300)
        self.t5 = self._sentencepiece("t5", vocab_size=400, pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
        self.bytes = self._sentencepiece("bytes", vocab_size=700, model_type="bpe", byte_fallback=True)
        self.speech = self._sentencepiece("speech", vocab_size=420, user_defined_symbols=MUSTC)

    def _sentencepiece(self, name, **options):
        sentencepiece.SentencePieceTrainer.train(
            input=str(self.folder / "text.txt"), model_prefix=str(self.folder / name), minloglevel=2, **options
        )
        return self.folder / f"{name}.model"

    def byte_level(self, *special):
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(
            vocab_size=500,
            special_tokens=list(special),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train([str(self.folder / "text.txt")], trainer)
        model = json.loads(tokenizer.to_str())["model"]
        return {"vocab": model["vocab"], "merges": [tuple(pair) for pair in model["merges"]]}

    def moses(self):
        """Pieces of words and their merges, as fastBPE has them."""
        # Importing it takes a second.
        import sacremoses

        cutter = sacremoses.MosesTokenizer()
        lines = [*(self.folder / "text.txt").read_text(encoding="utf-8").splitlines(), *SENTENCES * 4]
        tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        trainer = trainers.BpeTrainer(vocab_size=900, end_of_word_suffix="</w>", show_progress=False)
        words = (cutter.tokenize(line, aggressive_dash_splits=True, return_str=True) for line in lines)
        tokenizer.train_from_iterator(words, trainer)
        model = json.loads(tokenizer.to_str())["model"]
        return list(model["vocab"]), [" ".join(pair) for pair in model["merges"]]

    def json(self, name, tokens):
        path = self.folder / name
        path.write_text(json.dumps({token: index for index, token in enumerate(dict.fromkeys(tokens))}))
        return str(path)


def pieces(path):
    return [(piece.piece, piece.score) for piece in parse(path.read_bytes()).pieces]


def names(path):
    return [piece for piece, _ in pieces(path)[3:]]


def charsmap(path):
    return parse(path.read_bytes()).normalizer_spec.precompiled_charsmap


def t5(trained, **options):
    return transformers.T5Tokenizer(
        vocab=pieces(trained.t5), _spm_precompiled_charsmap=charsmap(trained.t5), extra_ids=10, **options
    )


def umt5(trained):
    """As transformers reads a sentencepiece model that no class of its own is made for."""
    folder = trained.folder / "umt5"
    folder.mkdir(exist_ok=True)
    t5(trained).save_pretrained(folder)
    return transformers.TokenizersBackend.from_pretrained(folder)


def roberta(kind, **options):
    def build(trained):
        return getattr(transformers, kind)(**trained.byte_level("<s>", "<pad>", "</s>", "<unk>", "<mask>"), **options)

    return build


def whisper(trained):
    tokenizer = transformers.WhisperTokenizer(**trained.byte_level())
    special = "startoftranscript en fr translate transcribe startofprev nospeech notimestamps".split()
    tokenizer.add_special_tokens({"extra_special_tokens": [f"<|{name}|>" for name in special]})
    times = [f"<|{index * 0.02:.2f}|>" for index in range(50)]
    tokenizer.add_tokens([AddedToken(time, normalized=False, special=False) for time in times])
    tokenizer.set_prefix_tokens()
    return tokenizer


def whisper_english(trained):
    tokenizer = transformers.WhisperTokenizer(**trained.byte_level())
    tokenizer.add_special_tokens(
        {"extra_special_tokens": ["<|startoftranscript|>", "<|startofprev|>", "<|notimestamps|>"]}
    )
    tokenizer.set_prefix_tokens()
    return tokenizer


def marian(trained, *, codes=(), separate=False, **options):
    # Pieces that the vocabulary lacks, and tokens that only the other language's pieces have.
    source = [piece for piece in names(trained.plain) if piece not in ("▁the", "e")]
    shared = [] if separate else [*names(trained.target), "日", "日本", "é", "٤"]
    return transformers.MarianTokenizer(
        str(trained.plain),
        str(trained.target),
        trained.json("marian.json", ["</s>", "<unk>", *source, *shared, *codes, "<pad>"]),
        target_vocab_file=trained.json("target.json", ["</s>", "<unk>", *names(trained.target), "<pad>"]),
        separate_vocabs=separate,
        **options,
    )


def m2m(trained):
    languages = [f"__{code}__" for code in FAIRSEQ_LANGUAGE_CODES["m2m100"]]
    vocabulary = trained.json("m2m.json", [*FAIRSEQ, *names(trained.plain)])
    return transformers.M2M100Tokenizer(vocabulary, str(trained.plain), additional_special_tokens=languages)


def m2m_of_bpe(trained):
    vocabulary = trained.json("m2m_bpe.json", [*FAIRSEQ, *names(trained.bytes)[256:]])
    return transformers.M2M100Tokenizer(vocabulary, str(trained.bytes))


def speech(trained, **options):
    vocabulary = trained.json("speech.json", [*FAIRSEQ, *names(trained.speech)])
    return transformers.Speech2TextTokenizer(vocabulary, str(trained.speech), **options)


def nllb(trained, **options):
    vocabulary = {piece: index for index, piece in enumerate([*FAIRSEQ, *names(trained.bytes)])}
    merges = generate_merges(vocabulary, dict(pieces(trained.bytes)[259:]))
    return transformers.NllbTokenizer(
        vocab=vocabulary, merges=merges, _spm_precompiled_charsmap=charsmap(trained.bytes), **options
    )


def gemma(trained):
    vocabulary = {piece: index for index, piece in enumerate(["<pad>", "<eos>", "<bos>", "<unk>"])}
    for piece in names(trained.bytes):
        vocabulary.setdefault(piece, len(vocabulary))
    merges = generate_merges(vocabulary, dict(pieces(trained.bytes)[259:]))
    return transformers.GemmaTokenizer(vocab=vocabulary, merges=merges)


def fairseq(kind):
    def build(trained):
        return getattr(transformers, kind)(vocab=[*((token, 0.0) for token in FAIRSEQ), *pieces(trained.plain)[3:]])

    return build


def mbart50(trained):
    return transformers.MBart50Tokenizer(vocab=pieces(trained.plain), _spm_precompiled_charsmap=charsmap(trained.plain))


def fsmt(trained, source="en", target="de", **options):
    """Each vocabulary lacks other pieces than the other, and numbers them in an order of its own."""
    names, merges = trained.moses()
    rest = [name for name in names if name not in ("the</w>", "о")]
    file = trained.folder / "merges.txt"
    file.write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    return transformers.FSMTTokenizer(
        langs=[source, target],
        src_vocab_file=trained.json("fsmt_source.json", [*special, *rest]),
        tgt_vocab_file=trained.json("fsmt_target.json", [*special, *reversed(names[:-50]), "the</w>", "日</w>"]),
        merges_file=str(file),
        **options,
    )


def pegasus(trained):
    reserved = ["<pad>", "</s>", "<mask_1>", "<mask_2>", *(f"<unk_{index}>" for index in range(2, 103)), "<unk>"]
    vocabulary = [*((token, 0.0) for token in reserved), *pieces(trained.plain)[3:]]
    return transformers.PegasusTokenizer(vocab=vocabulary, _spm_precompiled_charsmap=charsmap(trained.plain))


def prophetnet(trained):
    """BERT's words and pieces of words, in Python alone; its texts end in [SEP], with which answers begin and end."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[X_SEP]"]
    text = normalizers.BertNormalizer().normalize_str((trained.folder / "text.txt").read_text(encoding="utf-8"))
    counts = Counter(word for word, _ in pre_tokenizers.BertPreTokenizer().pre_tokenize_str(text))
    letters = sorted({letter for word in counts for letter in word})
    # Not by WordPieceTrainer, whose pieces are others each time.
    frequent = sorted((word for word in counts if len(word) > 1), key=lambda word: (-counts[word], word))
    pieces = [*special, *letters, *(f"##{letter}" for letter in letters), *frequent]
    file = trained.folder / "prophetnet.tokenizer"
    file.write_text("\n".join([*pieces[:400], ""]), encoding="utf-8")
    return transformers.ProphetNetTokenizer(str(file), bos_token="[SEP]", eos_token="[SEP]")


BUILDERS = {
    "t5": t5,
    "t5 closing up": lambda trained: t5(trained, clean_up_tokenization_spaces=True),
    "umt5": umt5,
    "byt5": lambda trained: transformers.ByT5Tokenizer(),
    "bart": roberta("BartTokenizer"),
    "bart told to close up": roberta("BartTokenizer", clean_up_tokenization_spaces=True),
    "blenderbot": roberta("BlenderbotTokenizer"),
    "whisper": whisper,
    "whisper.en": whisper_english,
    "marian": marian,
    "marian closing up": lambda trained: marian(trained, clean_up_tokenization_spaces=True),
    "marian of many languages": lambda trained: marian(trained, codes=[">>fra<<", ">>zho_Hant<<", ">>zho_Hans<<"]),
    "marian of two vocabularies": lambda trained: marian(trained, separate=True),
    "mbart": fairseq("MBartTokenizer"),
    "mbart50": mbart50,
    "m2m": m2m,
    "m2m of bpe": m2m_of_bpe,
    "nllb": nllb,
    "nllb, older": lambda trained: nllb(trained, legacy_behaviour=True),
    "fsmt": fsmt,
    "fsmt, small letters": lambda trained: fsmt(trained, "de", "ru", do_lower_case=True),
    "fsmt closing up": lambda trained: fsmt(trained, "ru", "en", clean_up_tokenization_spaces=True),
    "pegasus": pegasus,
    "speech to text": speech,
    "speech to texts": lambda trained: speech(trained, lang_codes="mustc", tgt_lang="fr"),
    "trocr": fairseq("XLMRobertaTokenizer"),
    "t5gemma": gemma,
    "prophetnet": prophetnet,
}
