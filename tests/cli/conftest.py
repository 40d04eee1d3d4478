"""A home and an environment of their own: nothing of whoever runs the tests decides what the command line does."""

from __future__ import annotations

import io
import os
import sys

import pytest

from tests.helpers.talking import SHORT
from triform.cli.main import run


@pytest.fixture(autouse=True)
def isolated(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    for name in ("TRIFORM_BUNDLE", "TRIFORM_DEBUG", "XDG_CONFIG_HOME", "PYTHONUNBUFFERED", "PYTHONIOENCODING"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def type_in(capsys, monkeypatch):
    def invoke(*arguments, typed=""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(os.fsencode(typed)), "utf-8"))
        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return invoke


@pytest.fixture
def chat(type_in, float_bundle):
    return lambda *lines, options=SHORT: type_in("chat", float_bundle, *options, typed="\n".join(lines) + "\n")
