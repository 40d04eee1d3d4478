"""Every Python block of README.md and docs/ runs, on small bundles, and passes a strict type checker."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.helpers.documentation import BLOCKS, ROOT


@pytest.fixture(scope="module")
def workplace(float_bundle, sentence_bundle, exported_family, checkpoint, speech_clips, tmp_path_factory):
    """A folder with what the blocks name."""
    folder = tmp_path_factory.mktemp("documentation")
    links = {
        "my-model": checkpoint,
        "my-bundle": float_bundle,
        "my-encoder": sentence_bundle,
        "my-translator": exported_family("nllb")[1],
        "my-whisper": exported_family("whisper")[1],
        "talk.wav": speech_clips[0][0],
    }
    for name, target in links.items():
        (folder / name).symlink_to(target)
    (folder / "book.txt").write_text("The keeper lit the lamp.\nThe boats came back at dusk.\n")
    return folder


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block_runs(block, workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    # A traceback names the line of the page.
    lines = "\n" * (block.line - 1)
    exec(compile(lines + block.source, ROOT / block.page, "exec"), {"__name__": "__main__"})


def test_blocks_pass_a_strict_type_checker(tmp_path):
    for number, block in enumerate(BLOCKS):
        (tmp_path / f"block_{number}.py").write_text(f"# {block}\n{block.source}")
    # With the project's settings, and so with what an earlier run of mypy knows of it.
    command = [sys.executable, "-m", "mypy", "--config-file", ROOT / "pyproject.toml", *sorted(tmp_path.iterdir())]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
