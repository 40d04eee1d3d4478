"""Computes the vector of each token of a text in its context."""

from __future__ import annotations

import re
from dataclasses import dataclass

from triform.runtime.arithmetic import Array, check_numbers
from triform.runtime.encoder.inputs import check_whole
from triform.runtime.encoder.opened import OpenEncoder
from triform.runtime.errors import InputError, UnsupportedError, option
from triform.runtime.text.pages import Text, text_of
from triform.runtime.text.token_view import TokenView, view_row

_LAST = "last_hidden_state"


@dataclass(frozen=True)
class TokenVectors:
    """Tokens and their vectors.

    Attributes:
        text: the text that they come from.
        tokens: all tokens, including special ones.
        vectors: float32 (tokens, hidden size).
    """

    text: str
    tokens: list[TokenView]
    vectors: Array

    def of_word(self, word: str) -> Array:
        """Return the mean vector of the tokens of a word's first occurrence, float32 (hidden size,).

        Raises:
            InputError: the word is not in the text, or in a part that the model did not read.
        """
        # Not `\b`, which does not match beside punctuation that is part of the word.
        match = re.search(rf"(?<!\w){re.escape(word)}(?!\w)", self.text, re.IGNORECASE) if word else None
        if match is None:
            raise InputError(f"the word {word!r} is not in {self.text[:60]!r}")
        inside = [token.index for token in self.tokens if token.start < match.end() and token.end > match.start()]
        if not inside:
            raise InputError(f"the model does not read as far as the word {word!r} in {self.text[:60]!r}")
        mean: Array = self.vectors[inside].mean(axis=0)
        return mean


def token_vectors(encoder: OpenEncoder, text: Text, layer: int | None = None) -> TokenVectors:
    """Compute the vector of each token of a text, truncated to what the model can read.

    Args:
        encoder: a feature-extraction bundle, or one exported with `ExportOptions.hidden_states`.
        text: the text, or a page for a bundle that reads boxes.
        layer: 0 for the embeddings, 1 for the first layer, and so on; the last layer when None.

    Raises:
        UnsupportedError: the bundle does not output these vectors.
        InputError: there is no such layer, or the text has no tokens or is not valid Unicode.
        BundleError: the vectors hold NaN or an infinity.
    """
    reader = encoder.reader()
    output = _output(encoder, layer)
    if encoder.step.outputs[output].shape[1] != "sequence":
        raise UnsupportedError(
            f"layer {layer} of this model has no vector for each token; choose another {option('layer')}"
        )
    row = reader.read([text])[0]
    if not row.ids:
        raise InputError("the text is empty: it has no tokens")
    vectors = encoder.step.run([row], [output])[0][0]
    check_numbers([vectors])
    plain = text_of(text)
    return TokenVectors(plain, view_row(reader.tokenizer, row, plain), vectors)


def _output(encoder: OpenEncoder, layer: int | None) -> str:
    kept = encoder.info.hidden_states
    if layer is None and _LAST in encoder.step.outputs:
        return _LAST
    if not kept:
        what = "its layers" if layer is not None else "the vectors of its tokens"
        raise UnsupportedError(f"this bundle does not give {what}: export the model with `ExportOptions.hidden_states`")
    index = kept - 1 if layer is None else layer
    check_whole("layer", index, 0, kept - 1, expected=f"from 0 to {kept - 1}")
    return f"hidden_states.{index}"
