"""Finds which boxes a model's tokenizer gives to special tokens, and compares all boxes with its own."""

from __future__ import annotations

from typing import Any

from triform.export.tokenization.conversion import difficult_texts, reads_pages
from triform.models.encoder.boxes import BoxForm
from triform.runtime.bundle.text_info import BoxesInfo, SpecialBox
from triform.runtime.errors import ExportError, UnsupportedError
from triform.runtime.text.pages import Page, laid_out
from triform.runtime.text.rows import RowReader

# What tokenizers that give boxes count the width and the height of a page as.
_PAGE = 1000
# Of the texts to compare, in characters.
_LONGEST = 1000


def boxes_info(tokenizer: Any, form: BoxForm) -> BoxesInfo:
    """How boxes are given to a model: those of special tokens are its tokenizer's.

    A tokenizer that gives no boxes is used as transformers documents it for LayoutLM, and as BROS was trained: the
    separator's box is the page's lower right corner, and that of the token before a text the upper left one.

    Args:
        tokenizer: of transformers.
        form: of the coordinates.

    Raises:
        UnsupportedError: it gives a box to what has no place on the page.
    """
    if any(getattr(tokenizer, "pad_token_box", None) or ()):
        raise UnsupportedError(f"its tokenizer gives padding and questions a box, {tokenizer.pad_token_box}")
    boxes = {
        tokenizer.sep_token_id: getattr(tokenizer, "sep_token_box", [_PAGE] * 4),
        # Where one token is both, the tokenizers look for this one first.
        tokenizer.cls_token_id: getattr(tokenizer, "cls_token_box", [0] * 4),
    }
    special = [
        SpecialBox(token, [value * form.scale // _PAGE for value in box])
        for token, box in boxes.items()
        if token is not None and any(box)
    ]
    return BoxesInfo(form.scale, form.whole, special)


def check_boxes(tokenizer: Any, reader: RowReader) -> None:
    """Compare the boxes of tokens with those that a tokenizer gives, if it gives any.

    Args:
        tokenizer: of transformers.
        reader: of whole numbers up to 1000, as such tokenizers take them.

    Raises:
        ExportError: they differ for a page, or for a question and a page.
    """
    if not reads_pages(tokenizer):
        return
    for text in filter(str.split, difficult_texts()):
        page = laid_out(text[:_LONGEST])
        _check_row(tokenizer, reader, page)
        _check_row(tokenizer, reader, ("What is it?", page))


def _check_row(tokenizer: Any, reader: RowReader, text: Page | tuple[str, Page]) -> None:
    before, page = ((), text) if isinstance(text, Page) else (text[:1], text[1])
    limits = {"truncation": True, "max_length": reader.max_length}
    boxes = [list(box) for box in page.boxes]
    expected = tokenizer(*before, list(page.words), boxes=boxes, **limits, verbose=False)["bbox"]
    (row,) = reader.read([text])
    if row.boxes is None or row.boxes.tolist() != expected:
        raise ExportError(f"the tokenizer gives other boxes for {page.text!r:.60}; please report this model")
