"""Where a checkpoint was published and its license, from the files of the checkpoint."""

from __future__ import annotations

import pytest

from triform.export.checkpoint.files.card import origin_of
from triform.runtime.bundle.export_record import Origin


def card(folder, text):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text(text)
    return folder


def test_a_snapshot_of_the_hub(tmp_path):
    folder = tmp_path / "models--org--some-model" / "snapshots" / "abc123"
    found = origin_of(card(folder, "---\nlicense: apache-2.0\n---\n# A model\n"))
    assert found == Origin("org/some-model", "abc123", "apache-2.0")


def test_a_folder_without_a_card_tells_nothing(tmp_path):
    assert origin_of(tmp_path) is None


@pytest.mark.parametrize(
    ("text", "license_"),
    [
        ("---\nlicense: other\nlicense_name: gemma\n---\n", "gemma"),
        ("---\nlicense: mit\n---\n", "mit"),
        ("---\nlanguage:\n- en\nlicense: 'bsd-3-clause'\ntags: [a]\n---", "bsd-3-clause"),
        # Not text, more than a name, no front matter, and YAML that cannot be read.
        ("---\nlicense:\n- mit\n---\n", None),
        (f"---\nlicense: {'x' * 1000}\n---\n", None),
        ("# A model\nlicense: mit\n", None),
        ("---\nlicense: [\n---\n", None),
        ("---\n- mit\n---\n", None),
    ],
)
def test_the_license_of_a_card(tmp_path, text, license_):
    found = origin_of(card(tmp_path, text))
    assert found == (None if license_ is None else Origin(license=license_))
