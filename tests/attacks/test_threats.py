"""The table of threats in docs/security.md names tests that exist, and each threat has one."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def rows():
    section = (ROOT / "docs" / "security.md").read_text(encoding="utf-8").partition("\n## Threats\n")[2]
    lines = [line for line in section.partition("\n## ")[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_every_threat_has_tests_that_exist():
    assert len(rows()) > 15
    for threat, outcome, tests in rows():
        assert threat and outcome
        named = re.findall(r"`([^`]+)`", tests)
        assert named, threat
        for name in named:
            path = ROOT / name
            files = sorted(path.rglob("test_*.py")) if path.is_dir() else [path]
            assert files and all(file.is_file() for file in files), name
            assert any("\ndef test" in file.read_text(encoding="utf-8") for file in files), name


def test_every_attack_is_in_the_table():
    cited = {name for _, _, tests in rows() for name in re.findall(r"`(tests/attacks/[^`]+)`", tests)}
    # This file attacks nothing.
    own = {f"tests/attacks/{path.name}" for path in Path(__file__).parent.glob("test_*.py")} - {
        "tests/attacks/test_threats.py"
    }
    assert cited == own
