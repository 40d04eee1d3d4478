"""chrF and BLEU of generated texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from triform.runtime.evaluation.measurement import Measurement, Metric, Rows
from triform.runtime.extras import missing_extra


def evaluate_generation(answers: Sequence[str], references: Sequence[str]) -> Measurement:
    """Compare texts that a model generated with references, one for each.

    Args:
        answers: the model's.
        references: what is expected.

    Returns:
        chrF2 and BLEU of all texts together, from 0 to 100, as sacrebleu computes them by default.

    Raises:
        UnsupportedError: sacrebleu is not installed.
    """
    try:
        from sacrebleu.metrics import BLEU, CHRF
    except ImportError:
        raise missing_extra("chrF and BLEU need sacrebleu", "evaluate") from None
    # chrF of single texts orders them; of the corpus it is computed from the sums of the same counts.
    chrf, bleu = CHRF(), BLEU()
    of_chrf, of_bleu = _statistics(chrf, answers, references), _statistics(bleu, answers, references)
    split = of_chrf.shape[1]
    metrics = (
        Metric("chrF2", lambda rows: _score(chrf, rows[:, :split])),
        Metric("BLEU", lambda rows: _score(bleu, rows[:, split:])),
    )
    scores = np.array([_score(chrf, row[None]) for row in of_chrf])
    details = {"chrF2": str(chrf.get_signature()), "BLEU": str(bleu.get_signature())}
    return Measurement(np.concatenate([of_chrf, of_bleu], axis=1), scores, metrics, "texts", details)


# sacrebleu's own bootstrap sums these statistics too; computing them again for each draw would take minutes.
def _statistics(metric: Any, answers: Sequence[str], references: Sequence[str]) -> Rows:
    return np.array(metric._extract_corpus_statistics(list(answers), [list(references)]), np.float64)


def _score(metric: Any, rows: Rows) -> float:
    return float(metric._compute_score_from_stats([int(total) for total in rows.sum(0)]).score)
