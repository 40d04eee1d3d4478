from __future__ import annotations

import dataclasses

from triform.cli.outputs.tables import encoder_parity_rows, parity_rows
from triform.runtime.bundle.export_record import EncoderParity, Parity, QuantizedEncoderParity, QuantizedParity


def test_that_the_tokens_that_ctc_writes_otherwise_have_a_row() -> None:
    quantized = QuantizedEncoderParity(12, score_mean=0.002, score_worst=0.01, token_errors=0.0132)
    rows = dict(encoder_parity_rows(EncoderParity(1e-6, 1e-6, 2.0, 1e-3, quantized)))
    assert rows["tokens changed"] == "1.32% of those that float32 writes"
    assert rows["scores off by"].startswith("0.00200 mean, 0.01000 worst of 12")


def test_that_the_words_that_speech_models_write_otherwise_have_a_row() -> None:
    parity = Parity(1e-6, 1e-6, 1e-6, 1e-6, 2.0, 1e-3, QuantizedParity(0.96, 0.0134, 2.85, 2.81, 186, 0.0055, 362))
    assert dict(parity_rows(parity))["words changed"] == "0.55% of 362 that float32 writes"
    assert parity.quantized is not None
    text = dataclasses.replace(parity, quantized=dataclasses.replace(parity.quantized, word_errors=None, words=None))
    assert "words changed" not in dict(parity_rows(text))
