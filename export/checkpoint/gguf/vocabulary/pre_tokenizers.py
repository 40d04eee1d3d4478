"""Pre-tokenizers, which split texts before BPE, by llama.cpp's names (`tokenizer.ggml.pre`).

Each is a sequence of patterns: every match of the first is a piece, and the next pattern splits the rest. Where
llama.cpp's patterns only approximate those of a model's own tokenizer.json, the latter are used.
"""

from __future__ import annotations

from dataclasses import dataclass

from triform.export.checkpoint.gguf.container import GgufFile
from triform.runtime.errors import UnsupportedError

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_WORD, _SIGNS = r"[^\r\n\p{L}\p{N}]?\p{L}+", r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_CONTRACTIONS}|{_WORD}|\p{{N}}{{1,3}}|{_SIGNS}|{_SPACES}"
_QWEN2 = rf"{_CONTRACTIONS}|{_WORD}|\p{{N}}|{_SIGNS}|{_SPACES}"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED_REST = rf" ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"


def _cased(numbers: str, suffix: str) -> str:
    """A pattern of words (capitals, then lower-case letters, then a suffix), numbers, punctuation and white space."""
    start = r"[^\r\n\p{L}\p{N}]?"
    return f"{start}{_UPPER}*{_LOWER}+{suffix}|{start}{_UPPER}+{_LOWER}*{suffix}|{numbers}|{_CASED_REST}"


_TEKKEN = _cased(r"\p{N}", "")
_GPT4O = _cased(r"\p{N}{1,3}", f"{_CONTRACTIONS}?")
_BLOOM = r" ?[^(\s|.,!?\x{2026}\x{3002}\x{ff0c}\x{3001}\x{964}\x{6d4}\x{60c})]+"
_PUNCTUATION = r"[!\x{22}#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"
_KANA = r"[\x{4e00}-\x{9fa5}\x{3040}-\x{309f}\x{30a0}-\x{30ff}]+"
_DEEPSEEK3 = (
    rf"{_PUNCTUATION}[A-Za-z]+|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_SPACES}"
)
_LETTERS = (
    r"[A-Za-z\x{b5}\x{c0}-\x{d6}\x{d8}-\x{f6}\x{f8}-\x{1ba}\x{1bc}-\x{1bf}\x{1c4}-\x{293}\x{295}-\x{2af}"
    r"\x{370}-\x{373}\x{376}\x{377}\x{37b}-\x{37d}\x{37f}\x{386}\x{388}-\x{38a}\x{38c}\x{38e}-\x{3a1}"
    r"\x{3a3}-\x{3f5}\x{3f7}-\x{481}\x{48a}-\x{52f}\x{531}-\x{556}\x{10a0}-\x{10c5}\x{13a0}-\x{13f5}"
    r"\x{13f8}-\x{13fd}\x{1c90}-\x{1cba}\x{1cbd}-\x{1cbf}\x{1d00}-\x{1d2b}\x{1d6b}-\x{1d77}\x{1d79}-"
    r"\x{1d9a}\x{1e00}-\x{1f15}\x{1f18}-\x{1f1d}\x{1f20}-\x{1f45}\x{1f48}-\x{1f4d}\x{1f50}-\x{1f57}"
    r"\x{1f59}\x{1f5b}\x{1f5d}\x{1f5f}-\x{1f7d}\x{1f80}-\x{1fb4}\x{1fb6}-\x{1fbc}\x{1fbe}\x{1fc2}-\x{1fc4}"
    r"\x{1fc6}-\x{1fcc}\x{1fd0}-\x{1fd3}\x{1fd6}-\x{1fdb}\x{1fe0}-\x{1fec}\x{1ff2}-\x{1ff4}\x{1ff6}-"
    r"\x{1ffc}\x{2102}\x{2107}\x{210a}-\x{2113}\x{2115}\x{2119}-\x{211d}\x{2124}\x{2126}\x{2128}\x{212a}-"
    r"\x{212d}\x{212f}-\x{2134}\x{2139}\x{213c}-\x{213f}\x{2145}-\x{2149}\x{214e}\x{2183}\x{2184}\x{2c00}-"
    r"\x{2c7b}\x{2c7e}-\x{2ce4}\x{2ceb}-\x{2cee}\x{2cf2}\x{2cf3}\x{a640}-\x{a66d}\x{a680}-\x{a69b}\x{a722}"
    r"-\x{a76f}\x{a771}-\x{a787}\x{a78b}-\x{a78e}\x{ab70}-\x{abbf}\x{fb00}-\x{fb06}\x{fb13}-\x{fb17}"
    r"\x{ff21}-\x{ff3a}\x{ff41}-\x{ff5a}\x{10400}-\x{1044f}\x{104b0}-\x{104d3}\x{104d8}-\x{104fb}\x{10c80}"
    r"-\x{10cb2}\x{10cc0}-\x{10cf2}\x{118a0}-\x{118df}\x{1e900}-\x{1e943}]+"
)
_DEEPSEEK_SIGNS = r"\s?[!-/:-~\x{ff01}-\x{ff0f}\x{ff1a}-\x{ff5e}\x{2018}-\x{201f}\x{3000}-\x{3002}]+"
_HANGUL = r"[\x{4e00}-\x{9fa5}\x{800}-\x{4e00}\x{ac00}-\x{d7ff}]+"
_YOUTU = (
    r"[\x{ac00}-\x{d7a3}\x{3131}-\x{318e}]+|[\x{ff01}\x{2026}\x{201c}\x{201d}\x{2018}\x{2019}\x{2014}"
    r"\x{ff1a}\x{ff1b}\x{ff0c}\x{3001}-\x{303f}\x{fe30}-\x{fe4f}]+|[\x{3105}-\x{312f}]+|[\x{4e00}-\x{9fa5}"
    r"\x{3040}-\x{309f}\x{30a0}-\x{30ff}]+"
)
_ASIAN = (
    r"[\x{4e00}-\x{9fff}\x{3400}-\x{4dbf}\x{8c48}-\x{faff}\x{3040}-\x{309f}\x{30a0}-\x{30ff}\x{ff65}-"
    r"\x{ff9f}\x{2f00}-\x{2fdf}\x{e40}-\x{e7f}\x{e80}-\x{eff}\x{1780}-\x{17ff}\x{1000}-\x{109f}\x{aa60}-"
    r"\x{aa7f}\x{a9e0}-\x{a9ff}\x{ac00}-\x{d7af}\x{1100}-\x{11ff}]+"
)


@dataclass(frozen=True)
class PreTokenizer:
    """How a vocabulary of type gpt2 is used.

    Attributes:
        patterns: see the module.
        ignore_merges: whether a piece that is in the vocabulary is a single token, even if merges do not lead to it.
        add_bos: whether a text begins with the bos token if the file does not say.
        composed: whether texts are normalized to NFC first.
    """

    patterns: tuple[str, ...]
    ignore_merges: bool = False
    add_bos: bool = False
    composed: bool = False


_BY_NAME: dict[str, PreTokenizer] = {}


def _named(pre_tokenizer: PreTokenizer, *names: str) -> None:
    _BY_NAME.update(dict.fromkeys(names, pre_tokenizer))


_named(
    PreTokenizer((_LLAMA3,), ignore_merges=True, add_bos=True),
    "llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano",
)  # fmt: skip
_named(PreTokenizer((_LLAMA3,)), "dbrx", "smaug-bpe", "chatglm-bpe")
_named(PreTokenizer((_LLAMA3,), ignore_merges=True), "glm4", "glm5")
_named(PreTokenizer((_QWEN2,), composed=True), "qwen2")
_named(
    PreTokenizer((_QWEN2,)),
    "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez", "hunyuan", "solar-open", "stablelm2", "grok-2",
)  # fmt: skip
_named(
    PreTokenizer(
        (
            rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}|"
            rf" ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_SPACES}",
        ),
        composed=True,
    ),
    "qwen35",
)
_named(PreTokenizer((rf"{_WORD}|\p{{N}}|{_SIGNS}|{_SPACES}",)), "ufakzeka")
_named(
    PreTokenizer((_GPT2,)),
    "gpt-2", "phi-2", "jina-es", "jina-de", "jina-v2-es", "jina-v2-de", "gigachat", "a.x-4.0", "mellum", "modern-bert",
    "jais", "trillion", "granite-docling", "exaone4", "jina-v1-en", "jina-v2-code", "roberta-bpe",
)  # fmt: skip
_named(PreTokenizer((_GPT2,), composed=True), "mpt", "olmo")
_named(PreTokenizer((r"\p{N}", _GPT2)), "starcoder", "refact", "smollm", "codeshell", "exaone", "minerva-7b", "mellum2")
_named(PreTokenizer((r"\p{N}", _GPT2), composed=True), "command-r")
_named(PreTokenizer((r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, "[0-9][0-9][0-9]")), "falcon")
_named(PreTokenizer((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]")), "default")
_named(PreTokenizer((r"[\r\n]", rf"\s?{_LETTERS}", _DEEPSEEK_SIGNS, r"\s+$", _HANGUL, r"\p{N}+")), "deepseek-llm")
_named(PreTokenizer((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _HANGUL, r"\p{N}")), "deepseek-coder")
_named(PreTokenizer((r"\p{N}{1,3}", _KANA, _DEEPSEEK3)), "deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4")
_named(
    PreTokenizer(
        (
            r"\p{N}{1,3}", _KANA,
            rf"{_PUNCTUATION}[A-Za-z]+|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+| ?[\p{{P}}\p{{S}}]+|[\r\n]|"
            r"\s+(?!\S)|\s+",
            r"\p{N}",
        )
    ),
    "spark2_5",
)  # fmt: skip
_named(PreTokenizer((_YOUTU, _cased(r"\p{N}", f"{_CONTRACTIONS}?")), ignore_merges=True), "youtu")
_named(PreTokenizer((_BLOOM,)), "poro-chat", "bloom", "gpt3-finnish")
_named(PreTokenizer((_BLOOM, r"\p{N}")), "viking")
_named(PreTokenizer((_TEKKEN,), ignore_merges=True, add_bos=True), "tekken")
_named(PreTokenizer((_GPT4O,)), "gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2")
_named(PreTokenizer((_GPT4O,), ignore_merges=True), "granite-embed-multi-97m")
_named(PreTokenizer((r"\d{1,3}(?=(?:\d{3})*\b)", _GPT4O)), "tiny_aya", "cohere2moe")
_named(PreTokenizer((r"\d{1,3}(?=(?:\d{3})*(?!\d))",)), "superbpe")
_named(PreTokenizer((r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))", _ASIAN, _DEEPSEEK3)), "afmoe")
_named(
    PreTokenizer(
        (
            r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|"
            r"\s*[\r\n]|\s+(?!\S)|\s+",
        )
    ),
    "bailingmoe", "bailingmoe2", "llada-moe",
)  # fmt: skip
_named(PreTokenizer((rf"{_CONTRACTIONS}|{_WORD}|\p{{N}}{{1}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_SPACES}",)), "seed-coder")
_named(PreTokenizer((r"[^\n]+|[\n]+", _QWEN2)), "laguna")
_named(
    PreTokenizer(
        (
            rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|\p{{N}}|"
            r" ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+",
        )
    ),
    "exaone-moe",
)
_named(
    PreTokenizer((r"\p{N}{1,3}", rf"{_CONTRACTIONS}|{_WORD}|\p{{N}}+|{_SIGNS}|{_SPACES}"), ignore_merges=True),
    "minicpm5",
)
_named(
    PreTokenizer(
        (
            rf"{_CONTRACTIONS}|{_WORD}|\p{{N}}{{1,3}}|{_SIGNS}|\s*[\r\n]+|"
            + "|".join(rf"\s{{{count}}}(?!\S)" for count in (512, 256, 128, 64, 32, 16, 8, 4))
            + r"|\s{1,2}(?!\S)|\s{1}",
        )
    ),
    "jais-2",
)
_named(
    PreTokenizer(
        (
            r"<sentinel:[0-9]+>", r"(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", r"([\t\n]|    |  )", r"\p{N}",
            r"[\p{P}!-/:-@\[-`{-~]", _GPT2,
        ),
        add_bos=True,
    ),
    "chameleon",
)  # fmt: skip
_HAN = r"[^\r\n\p{L}\p{N}]?"
_named(
    PreTokenizer(
        (
            rf"[\p{{Han}}]+|{_HAN}[\p{{Lu}}\p{{Lt}}\p{{Lm}}\p{{Lo}}\p{{M}}&&[^\p{{Han}}]]*"
            rf"[\p{{Ll}}\p{{Lm}}\p{{Lo}}\p{{M}}&&[^\p{{Han}}]]+{_CONTRACTIONS}?|"
            rf"{_HAN}[\p{{Lu}}\p{{Lt}}\p{{Lm}}\p{{Lo}}\p{{M}}&&[^\p{{Han}}]]+"
            rf"[\p{{Ll}}\p{{Lm}}\p{{Lo}}\p{{M}}&&[^\p{{Han}}]]*{_CONTRACTIONS}?|\p{{N}}{{1,3}}|{_SIGNS}|{_SPACES}",
        )
    ),
    "kimi-k2",
)


def pre_tokenizer_of(file: GgufFile) -> PreTokenizer:
    """The pre-tokenizer that a file names.

    Raises:
        UnsupportedError: its name is unknown.
    """
    name = file.values.get("tokenizer.ggml.pre") or "default"
    if name not in _BY_NAME:
        raise UnsupportedError(
            f"{file.path.name} needs the pre-tokenizer {name!r} (tokenizer.ggml.pre), which is not supported"
        )
    return _BY_NAME[name]


def names() -> tuple[str, ...]:
    """The names of all supported pre-tokenizers."""
    return tuple(_BY_NAME)
