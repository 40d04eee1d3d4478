"""What quantized bundles lose on texts that nothing was calibrated on, language by language.

    python -m benchmarks.held_out_texts FLOAT-BUNDLE BUNDLE…

The texts are `benchmarks/texts`, a file for each language, and code. Of a decoder the growth of its perplexity is
shown, of an encoder the mean and the worst cosine of its vectors with the float bundle's, over the sentences of a text.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np

import triform
from triform import Decoder, Encoder

_TEXTS = Path(__file__).parent / "texts"
# Ends of sentences, in all of the scripts.
_SENTENCE = re.compile(r"(?<=[.!?।。？！؟])\s*|\n\n")


def main() -> None:
    """Print a table with a row for each text and a column for each bundle."""
    original, *others = [triform.load(Path(name)) for name in sys.argv[1:]]
    print("|".join(["text", *(Path(name).name for name in sys.argv[2:])]))
    for path in sorted(_TEXTS.glob("*.txt")):
        text = path.read_text(encoding="utf-8")
        print("|".join([path.stem, *(_loss(original, other, text) for other in others)]))


def _loss(original: object, other: object, text: str) -> str:
    if isinstance(original, Decoder) and isinstance(other, Decoder):
        return f"{100 * (other.perplexity(text) / original.perplexity(text) - 1):+.2f} %"
    if isinstance(original, Encoder) and isinstance(other, Encoder):
        sentences = [part for part in _SENTENCE.split(text) if part.strip()]
        cosines = (original.embed(sentences) * other.embed(sentences)).sum(-1)
        return f"{np.mean(cosines):.4f} {np.min(cosines):.4f}"
    raise SystemExit("the bundles must all be decoders, or all encoders that give vectors")


if __name__ == "__main__":
    main()
