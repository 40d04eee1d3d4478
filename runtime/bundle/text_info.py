"""The manifest's records of tokenizers, languages and tasks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

# Engines for chat templates. minijinja starts 30 times faster; Jinja2 renders every template.
MINIJINJA, JINJA2 = "minijinja", "jinja2"
TEMPLATE_ENGINES = (MINIJINJA, JINJA2)
# An end of a text.
Side = Literal["left", "right"]


@dataclass(frozen=True)
class CodePointsInfo:
    """A tokenizer whose ids are the code points of characters.

    Attributes:
        first: the token before a text.
        separator: the token after each text.
        special: tokens that are not text.
        strip_before: tokens that remove the spaces before them.
        second_type: the token type of the second text of a pair.
    """

    first: int
    separator: int
    special: list[int]
    strip_before: list[int] = field(default_factory=list)
    second_type: int = 0


@dataclass(frozen=True)
class SpecialBox:
    """The box that a special token has: left, top, right and bottom, up to `BoxesInfo.scale`."""

    token: int
    box: list[int]


@dataclass(frozen=True)
class BoxesInfo:
    """Where each token of a page stands: the graph's input ``bbox``, (batch, sequence, 4).

    All tokens of a word have the word's box. Other tokens, such as those of a question, have zeros.

    Attributes:
        scale: what the width and the height of the page count as.
        whole: whether coordinates are whole numbers, int64; otherwise they are float32.
        special: special tokens whose boxes are not zeros.
    """

    scale: int
    whole: bool
    special: list[SpecialBox] = field(default_factory=list)


@dataclass(frozen=True)
class TokenizerInfo:
    """Files and special strings of the tokenizer.

    Attributes:
        file: for the tokenizers library; None if `code_points` replaces it.
        chat_template: the file of the default template; None if there is none.
        chat_templates: the files of other templates, by name, such as "tool_use" and "rag".
        template_engine: renders the templates, one of `TEMPLATE_ENGINES`.
        special: strings that a template may use, by name.
        code_points: for a model that reads characters and has no vocabulary.
        truncation_side: where a text that is too long is cut: "left" keeps its end.
    """

    file: str | None
    chat_template: str | None
    special: dict[str, str]
    code_points: CodePointsInfo | None = None
    chat_templates: dict[str, str] = field(default_factory=dict)
    template_engine: str = MINIJINJA
    truncation_side: Side = "right"

    @property
    def has_chat_template(self) -> bool:
        """Whether there is any chat template."""
        return self.chat_template is not None or bool(self.chat_templates)


@dataclass(frozen=True)
class SourceLanguage:
    """The special tokens around a text in one language."""

    prefix: list[int] = field(default_factory=list)
    suffix: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class TargetLanguage:
    """The tokens that select a target language.

    Attributes:
        asked: ids that ask the encoder for this language; they go before the source language's prefix and the text.
        forced: ids that the target begins with, after the start token.
    """

    asked: list[int] = field(default_factory=list)
    forced: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class LanguagesInfo:
    """The languages of a translation model, by the model's own codes ("de_DE", "deu_Latn", "de", "deu").

    Attributes:
        sources: languages that a text can be in; empty if the model takes no source language.
        targets: languages that a text can be translated into; empty if there is no choice.
        default_source: language of a text when none is given.
        default_target: language to translate into when none is given.
        plain: special tokens around a text if the model takes no source language.
    """

    sources: dict[str, SourceLanguage] = field(default_factory=dict)
    targets: dict[str, TargetLanguage] = field(default_factory=dict)
    default_source: str | None = None
    default_target: str | None = None
    plain: SourceLanguage = field(default_factory=SourceLanguage)


@dataclass(frozen=True)
class TaskPrefix:
    """The settings of one task of a multi-task model.

    Attributes:
        prefix: text put before a source text, such as "summarize: ".
        generation: options of `generate` in the model's config for this task, by transformers' names.
    """

    prefix: str
    generation: dict[str, bool | int | float | str] = field(default_factory=dict)


@dataclass(frozen=True)
class MosesInfo:
    """Settings of the Moses tokenizer (the package sacremoses), which splits texts into the words of tokenizer.json.

    Attributes:
        source: the language of source texts, as the package names it.
        target: the language of generated texts.
        lowercase: whether source texts are converted to lower case.
        replaced: replacements in a text after its words are joined, in this order.
    """

    source: str
    target: str
    lowercase: bool = False
    replaced: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SourceTextInfo:
    """How texts are tokenized for an encoder and decoded from the decoder, in addition to tokenizer.json.

    Attributes:
        target_file: the tokenizer that decodes, if it is not tokenizer.json.
        languages: None for a model without languages.
        unknown: the unknown token, if tokenizer.json has more ids than the vocabulary: those from `vocabulary` on are
            replaced by it. None otherwise.
        vocabulary: size of the vocabulary, see `unknown`.
        composed: whether letters and their combining marks are composed into one character before tokenizer.json.
        moses: how texts are split into words; None if tokenizer.json takes texts.
    """

    target_file: str | None = None
    languages: LanguagesInfo | None = None
    unknown: int | None = None
    vocabulary: int | None = None
    composed: bool = False
    moses: MosesInfo | None = None
