"""What the manifest says of tokenizers, languages and tasks."""

from __future__ import annotations

from dataclasses import dataclass, field

# What renders chat templates. minijinja starts in a thirtieth of the time, and Jinja2 renders every template.
MINIJINJA, JINJA2 = "minijinja", "jinja2"
TEMPLATE_ENGINES = (MINIJINJA, JINJA2)


@dataclass(frozen=True)
class CodePointsInfo:
    """A tokenizer whose ids are the code points of characters.

    Attributes:
        first: the token before a text.
        separator: the token behind each text.
        special: tokens that are no text.
        strip_before: tokens that swallow the spaces before them.
        second_type: the token type of the second text of a pair.
    """

    first: int
    separator: int
    special: list[int]
    strip_before: list[int] = field(default_factory=list)
    second_type: int = 0


@dataclass(frozen=True)
class TokenizerInfo:
    """Files and special strings of the tokenizer.

    Attributes:
        file: for the tokenizers library; None where `code_points` says it all.
        chat_template: the file of the template to use where nothing else is said; None without one.
        chat_templates: the files of further templates, by name, such as "tool_use" and "rag".
        template_engine: what renders them, one of `TEMPLATE_ENGINES`.
        special: strings a template may use, by name.
        code_points: of a model that reads characters and has no vocabulary.
    """

    file: str | None
    chat_template: str | None
    special: dict[str, str]
    code_points: CodePointsInfo | None = None
    chat_templates: dict[str, str] = field(default_factory=dict)
    template_engine: str = MINIJINJA

    @property
    def has_chat_template(self) -> bool:
        """Whether there is any chat template."""
        return self.chat_template is not None or bool(self.chat_templates)


@dataclass(frozen=True)
class SourceLanguage:
    """What is put around the token ids of a text in one language."""

    prefix: list[int] = field(default_factory=list)
    suffix: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class TargetLanguage:
    """How one language is asked for.

    Attributes:
        asked: ids put before the source text, in front of what its own language puts there.
        forced: ids the target begins with, after the token that decoding starts with.
    """

    asked: list[int] = field(default_factory=list)
    forced: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class LanguagesInfo:
    """The languages of a translating model, by the model's own codes ("de_DE", "deu_Latn", "de", "deu").

    Attributes:
        sources: languages a text can be in; empty where the model does not ask.
        targets: languages a text can be translated into; empty where there is no choice.
        default_source: what a text is in when nothing is said.
        default_target: what it is translated into when nothing is said.
        plain: what is put around a text where the model does not ask for its language.
    """

    sources: dict[str, SourceLanguage] = field(default_factory=dict)
    targets: dict[str, TargetLanguage] = field(default_factory=dict)
    default_source: str | None = None
    default_target: str | None = None
    plain: SourceLanguage = field(default_factory=SourceLanguage)


@dataclass(frozen=True)
class TaskPrefix:
    """What a model of many tasks does on one of them.

    Attributes:
        prefix: text put before a source text, such as "summarize: ".
        generation: what the model's config asks of `generate` for this task, by transformers' names.
    """

    prefix: str
    generation: dict[str, bool | int | float | str] = field(default_factory=dict)


@dataclass(frozen=True)
class MosesInfo:
    """Words as Moses' scripts cut and join them, in the package sacremoses; tokenizer.json reads and writes words.

    Attributes:
        source: the language of the texts that are read, as the package calls it.
        target: the language of what is written.
        lowercase: whether texts are read in lower case.
        replaced: what is replaced in a text after its words are joined, in this order.
    """

    source: str
    target: str
    lowercase: bool = False
    replaced: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SourceTextInfo:
    """How a text becomes an encoder's token ids, and the decoder's a text, besides what tokenizer.json says.

    Attributes:
        target_file: the tokenizer that decodes, where it is not tokenizer.json.
        languages: None for a model without languages.
        unknown: the id of what the vocabulary lacks, where tokenizer.json may give more ids than the vocabulary has:
            those from `vocabulary` on stand for it. None where it does not.
        vocabulary: see there.
        composed: whether letters and the marks behind them become one character before tokenizer.json sees them.
        moses: how texts become words and words a text; None where tokenizer.json reads and writes texts.
    """

    target_file: str | None = None
    languages: LanguagesInfo | None = None
    unknown: int | None = None
    vocabulary: int | None = None
    composed: bool = False
    moses: MosesInfo | None = None
