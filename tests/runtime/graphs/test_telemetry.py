"""ONNX Runtime sends nothing and leaves nothing: its telemetry keeps a database and a device's number in the cache."""

from __future__ import annotations

import os
import subprocess
import sys

RUN = "import sys, triform; print(triform.load(sys.argv[1]).embed(['snow']).shape)"


def test_only_triform_writes_to_the_cache(sentence_bundle, tmp_path):
    """Where the test fails without the variable: onnxruntime 1.32 on Linux."""
    kept = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, "-c", RUN, sentence_bundle], env=kept | home, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("(1, 48)\n", "")
    assert {path.relative_to(tmp_path).parts[:2] for path in tmp_path.rglob("*") if path.is_file()} <= {
        ("cache", "triform")
    }
