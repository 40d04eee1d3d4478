"""A home and an environment of their own: nothing of whoever runs the tests decides what the command line does."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def isolated(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    for name in ("TRIFORM_BUNDLE", "TRIFORM_DEBUG", "PYTHONUNBUFFERED", "PYTHONIOENCODING"):
        monkeypatch.delenv(name, raising=False)
