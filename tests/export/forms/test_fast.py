"""A fast export does not calibrate, and its manifest says what was compared."""

from __future__ import annotations

import json

import pytest

from tests.checkpoints.decoders import llama_folder
from triform.export import ExportOptions, export
from triform.runtime.errors import InputError


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return llama_folder(tmp_path_factory.mktemp("fast") / "llama")


def exported(checkpoint, folder, **options):
    export(checkpoint, folder, ExportOptions(quantize="int4", **options))
    return json.loads((folder / "manifest.json").read_text())


def test_the_manifest_says_what_was_compared(checkpoint, tmp_path):
    fast = exported(checkpoint, tmp_path / "fast", fast=True)
    notes = fast["graphs"]["decoder"]["notes"]
    assert notes["calibration"] == "none"
    assert "48 tokens" in notes["parity"]
    assert "on 128" in notes["parity"]
    # The last of 128 tokens predicts none that is known.
    assert fast["export"]["parity"]["quantized"]["tokens"] == 127


def test_what_others_measure_is_not_measured(checkpoint, tmp_path):
    slow = exported(checkpoint, tmp_path / "slow")
    assert not {"calibration", "parity"} & set(slow["graphs"]["decoder"]["notes"])
    assert slow["export"]["parity"]["quantized"]["tokens"] == 1022


@pytest.mark.parametrize(
    ("options", "named"), [({"calibrate": ("text.txt",)}, "calibrate"), ({"target_bits": 4.8}, "target_bits")]
)
def test_what_needs_measurements_is_refused(options, named):
    with pytest.raises(InputError, match=named):
        ExportOptions(fast=True, **options)
