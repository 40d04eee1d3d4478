"""Small tokenizers with the decoders that models have, and random texts and tokens for them."""

from __future__ import annotations

from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from tests.checkpoints.decoders import byte_level_tokenizer
from triform.export.tokenization.clean_up import clean_up_decoding
from triform.runtime.text.tokenizer import load_tokenizer

SPACE = "\u2581"
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
WORDS = [SPACE, f"{SPACE}the", "a", "e", f"{SPACE}\u00e9", "\u4e2d", "t", "h", f"{SPACE}a", "'", f"{SPACE}n", SPACE * 2]
# What BERT's decoder closes up, whole and in parts.
CLOSED_UP = [*"'nmtsver.,!?", "n't", "'m", "'s", "'ve", "'re", "ve", "re", "do", "not", "\ufffd"]


def llama() -> Tokenizer:
    """SentencePiece as Llama 2 has it: a space put first and stripped again, bytes for what no piece spells."""
    vocab = {piece: index for index, piece in enumerate([*BYTES, *WORDS])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return with_special(tokenizer)


def gemma() -> Tokenizer:
    """The same without a space put first."""
    tokenizer = llama()
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    tokenizer.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


def unigram(*, byte_fallback: bool) -> Tokenizer:
    """Unigram with Metaspace, as T5 and XLM-R have it, or with bytes for what no piece spells."""
    pieces = ["<unk>", *(BYTES if byte_fallback else ()), *WORDS]
    model = models.Unigram([(piece, -len(pieces) / len(piece)) for piece in pieces], 0, byte_fallback)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    steps = [decoders.ByteFallback(), decoders.Metaspace()] if byte_fallback else [decoders.Metaspace()]
    tokenizer.decoder = decoders.Sequence(steps)
    return with_special(tokenizer)


def wordpiece() -> Tokenizer:
    """BERT's: words and their parts, and punctuation closed up token by token."""
    words = ["[UNK]", *CLOSED_UP, *(f"##{part}" for part in CLOSED_UP), "\u00e9", "\u4e2d", "##"]
    tokenizer = Tokenizer(models.WordPiece({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return with_special(tokenizer)


def cleaned_up(folder) -> Tokenizer:
    """The same as a bundle has it: punctuation closed up in the whole text."""
    fast = PreTrainedTokenizerFast(tokenizer_object=wordpiece(), clean_up_tokenization_spaces=True)
    fast.save_pretrained(folder)
    clean_up_decoding(fast, folder)
    return load_tokenizer(folder / "tokenizer.json")


def with_special(tokenizer: Tokenizer) -> Tokenizer:
    """With a token that is never shown, and put before each text."""
    tokenizer.add_special_tokens(["<s>"])
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", None, [("<s>", tokenizer.token_to_id("<s>"))])
    return tokenizer


MAKERS = {
    "byte-level": byte_level_tokenizer,
    "llama": llama,
    "gemma": gemma,
    "unigram": lambda: unigram(byte_fallback=False),
    "unigram with bytes": lambda: unigram(byte_fallback=True),
    "wordpiece": wordpiece,
}
# Any characters, and those that the vocabularies above spell: hypothesis would hardly ever find these.
TEXTS = st.text(max_size=20) | st.text(alphabet="a e\u00e9\u4e2dth\U0001f600\u0646'nmsvr.,!?\ufffd", max_size=20)


def random_ids(tokenizer: Tokenizer) -> st.SearchStrategy[list[int]]:
    """Any tokens of the vocabulary, special ones and unfinished characters included; often the same few."""
    count = tokenizer.get_vocab_size()
    any_of_them = st.integers(0, count - 1)
    # Behind the bytes are the pieces, and the special token is the last.
    return st.lists(any_of_them | st.integers(max(count - 20, 0), count - 1), max_size=24)
