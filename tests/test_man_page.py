"""The manual page: everything that --help has is in it, and the programs that show it find no fault."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from docs.write_man_page import page
from triform.cli.command_table import CONFIGURABLE, load_command


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("man") / "triform.1"
    path.write_text(page(), encoding="ascii")
    return path


def test_every_command_and_option_is_there(written):
    sections = written.read_text().split('.SS "triform ')[1:]
    by_name = {section.partition('"')[0].replace("\\-", "-"): section.replace("\\-", "-") for section in sections}
    assert set(by_name) == {" ".join(table) for table in CONFIGURABLE} | {"doctor"}
    for table in CONFIGURABLE:
        for option in load_command(table).params:
            flags = option.opts if option.param_type_name == "option" else []
            for flag in flags:
                assert flag in by_name[" ".join(table)], (table, flag)


def test_text_is_no_request(written):
    """Of the lines that begin with a dot all are macros that the page uses."""
    lines = [line for line in written.read_text().splitlines() if line.startswith((".", "'"))]
    assert {line.split()[0] for line in lines} <= {f".{name}" for name in "TH SH SS PP TP B I BI BR nf fi".split()}


@pytest.mark.parametrize(
    "command",
    [
        pytest.param([name, *options], marks=pytest.mark.skipif(shutil.which(name) is None, reason=f"no {name} here"))
        for name, *options in (
            ("mandoc", "-T", "lint", "-W", "warning"),
            ("groff", "-ww", "-z", "-man", "-Tutf8"),
            ("man", "--warnings", "-l"),
        )
    ],
    ids=lambda command: command[0],
)
def test_the_programs_that_show_it(written, command):
    done = subprocess.run([*command, written], capture_output=True, text=True, check=False)
    # The page has no date, so that the same sources give the same page.
    said = done.stderr + done.stdout * (command[0] == "mandoc")
    assert [line for line in said.splitlines() if "missing date" not in line] == []
