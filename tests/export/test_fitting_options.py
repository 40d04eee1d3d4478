"""Options that have no effect on what is exported are refused, or dropped where they are set for every call."""

from __future__ import annotations

import pytest

from triform.export.checkpoint.purpose import Purpose
from triform.export.fitting_options import without_unused
from triform.export.options import ExportOptions
from triform.runtime.errors import InputError, use_defaults

TASKS = {
    "decoder": "text-generation",
    "encoder": "feature-extraction",
    "encoder-decoder": "translation",
    "image": "image-classification",
    "audio": "audio-classification",
    "static": "feature-extraction",
}


def fitted(form, task=None, **options):
    purpose = Purpose(form, task or TASKS[form], "a test")
    return without_unused(purpose, ExportOptions(**{"quantize": "int8", **options}))


@pytest.mark.parametrize(
    ("form", "options", "message"),
    [
        ("encoder", {"fast": True}, "`fast` is for decoders, and this model is of the form encoder"),
        ("encoder-decoder", {"fast_prompts": True}, "`fast_prompts` is for decoders"),
        ("image", {"block_size": 64}, "`block_size` is for `quantize` int4 here"),
        ("static", {"accuracy_level": 1}, "`accuracy_level` is for products of quantized weights"),
        ("decoder", {"accuracy_level": 1, "quantize": "none"}, "`accuracy_level` is for products of quantized weights"),
        ("decoder", {"accuracy_level": 1, "quantize": "int4", "target": "gpu"}, "`accuracy_level` is for `target` cpu"),
        ("decoder", {"calibrate": ("a.txt",), "quantize": "none"}, "`calibrate` does not go with `quantize` none"),
        ("audio", {"calibrate": ("a.wav",)}, "`calibrate` is for decoders, encoders of texts, and encoder-decoders"),
        ("decoder", {"word_timestamps": True}, "`word_timestamps` is for speech models that write"),
        ("static", {"hidden_states": True}, "`hidden_states` is for decoders and for encoders of texts and images"),
        ("audio", {"context_length": 64}, "`context_length` counts tokens of texts, and this model reads none"),
        ("image", {"context_length": 64}, "`context_length` counts tokens of texts, and this model reads none"),
    ],
)
def test_an_option_without_effect(form, options, message):
    with pytest.raises(InputError, match=message):
        fitted(form, **options)
    name = next(iter(options))
    use_defaults([name])
    try:
        assert getattr(fitted(form, **options), name) == getattr(ExportOptions(), name)
    finally:
        use_defaults(())


def test_options_that_have_one_stay():
    options = {"fast": True, "block_size": 64, "accuracy_level": 1, "context_length": 64, "hidden_states": True}
    assert fitted("decoder", **options) == ExportOptions(quantize="int8", **options)
    speech = fitted("encoder-decoder", "automatic-speech-recognition", word_timestamps=True)
    assert speech.word_timestamps
    with pytest.raises(InputError, match="`word_timestamps` is for speech models that write, and this one is for tran"):
        fitted("encoder-decoder", word_timestamps=True)
    with pytest.raises(InputError, match="`context_length` cannot be chosen for a model of images and texts"):
        fitted("image", "zero-shot-image-classification", context_length=64)
    with pytest.raises(InputError, match="`hidden_states` is not for zero-shot-image-classification"):
        fitted("image", "zero-shot-image-classification", hidden_states=True)
