"""What shells complete: commands, options, values and bundles, without anything heavy being imported."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys

import pytest

HEAVY = {"numpy", "onnxruntime", "tokenizers", "minijinja", "rich"}
RUN = "from triform.cli.main import main; main()"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two bundles, one of them deeper, a folder that is none, and a name that zsh would run."""
    for name in ("bundle", "models/inner", "bandit $(touch ran)"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "manifest.json").touch()
    (tmp_path / "bare").mkdir()
    (tmp_path / "book.txt").touch()
    # Completion neither reads nor complains of it.
    (tmp_path / "triform.toml").write_text("[")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def completed(line, shell="bash"):
    """What the program prints when a shell asks about a line."""
    words = shlex.split(line) + [""] * line.endswith(" ")
    asked = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1), "_TYPER_COMPLETE_ARGS": line}
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        env=os.environ | asked | {"_TRIFORM_COMPLETE": f"complete_{shell}"},
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    return done.stdout.split("\n")[:-1]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("triform classify", ["classify", "classify-image", "classify-audio"]),
        ("triform batch em", ["embed"]),
        ("triform embed --out", ["--output-dtype", "--output"]),
        ("triform embed bundle --verify a", ["always"]),
        ("triform inspect b", ["bundle"]),
        ("triform generate --draft models/", ["models/inner"]),
        ("triform embed m", ["models/inner"]),
        # Where there is no bundle a shell completes files itself.
        ("triform embed bare/", [""]),
        ("triform embed bundle --file b", [""]),
    ],
)
def test_completion(folder, line, expected):
    assert completed(line) == expected


def test_zsh_evaluates_what_is_printed(folder):
    (line,) = completed("triform inspect b", "zsh")
    assert line == """_arguments '*: :(("bundle"))'"""


def test_bash_itself(folder, tmp_path):
    """The script that --show-completion prints in bash, run in bash."""
    bash = shutil.which("bash")
    assert bash is not None
    (tmp_path / "triform").write_text(f"#!/bin/sh\nexec {sys.executable} -c '{RUN}' \"$@\"\n")
    (tmp_path / "triform").chmod(0o755)
    asked = 'COMP_WORDS=(triform inspect b); COMP_CWORD=2; _triform_completion triform; echo "${COMPREPLY[@]}"'
    done = subprocess.run(
        [bash, "--norc", "-c", f'eval "$(triform --show-completion)"\n{asked}'],
        env=os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("bundle\n", "")


def test_nothing_heavy_is_imported(folder):
    watched = f"import sys, atexit\natexit.register(lambda: print(sorted(sys.modules), file=sys.stderr))\n{RUN}"
    done = subprocess.run(
        [sys.executable, "-c", watched.replace("main()", "from triform.cli.main import app; app(prog_name='triform')")],
        env=os.environ | {"COMP_WORDS": "triform generate b", "COMP_CWORD": "2", "_TRIFORM_COMPLETE": "complete_bash"},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "bundle\n"
    assert not HEAVY & set(eval(done.stderr))
