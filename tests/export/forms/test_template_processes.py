"""No process that renders templates keeps the memory that an export had when it began."""

from __future__ import annotations

from transformers import AutoTokenizer

from triform.export.forms.decoder import write_decoder_tokenizer
from triform.runtime.decoder.templates import isolation


def test_they_end_before_the_weights_are_stored(checkpoint, tmp_path, monkeypatch):
    isolation.end()
    start, started = isolation._start, []
    monkeypatch.setattr(isolation, "_start", lambda render: started.append(start(render)) or started[-1])
    info, _ = write_decoder_tokenizer(AutoTokenizer.from_pretrained(checkpoint), tmp_path)
    assert info.has_chat_template
    assert started
    assert not any(child.usable for child in started)
