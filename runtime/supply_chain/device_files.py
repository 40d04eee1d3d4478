"""The files beside bundles and wheels in a pack: what installs them, what starts triform, and what says how."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

INSTALL_SH = """#!/bin/sh
# Installs what lies in this folder. Needs Python alone, and no network.
set -e
cd "$(dirname "$0")"
exec "${PYTHON:-python3}" install.py
"""

LAUNCHER = """#!/bin/sh
# Runs triform as it is installed beside this file.
here=$(cd "$(dirname "$0")" && pwd)
PYTHONPATH="$here/site${PYTHONPATH:+:$PYTHONPATH}" exec "${PYTHON:-python3}" -m triform "$@"
"""

INSTALL_PY = '''"""Checks this folder against SHA256SUMS and unpacks its wheels into site/; needs no package."""

import hashlib
import os
import pathlib
import re
import shutil
import sys
import sysconfig
import zipfile

PYTHON, PROCESSOR, SKIPPED = {python!r}, {processor!r}, {skipped!r}
HERE = pathlib.Path(__file__).resolve().parent


def digest(path):
    sha = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            sha.update(block)
    return sha.hexdigest()


def main():
    version = ".".join(map(str, sys.version_info[:2]))
    if version != PYTHON:
        return f"this pack is for Python {{PYTHON}}, and this is {{version}}: name another by PYTHON=python{{PYTHON}}"
    if PROCESSOR and not sysconfig.get_platform().endswith(PROCESSOR):
        return f"this pack is for {{PROCESSOR}}, and this machine is {{sysconfig.get_platform()}}"
    for line in (HERE / "SHA256SUMS").read_text().splitlines():
        expected, name = line.split("  ", 1)
        if not (HERE / name).is_file() or digest(HERE / name) != expected:
            return f"{{name}} is missing or damaged: copy the pack again"
    site, unfinished = HERE / "site", HERE / "site.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    for wheel in sorted((HERE / "wheels").glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                # Of a wheel's data, what is imported; scripts are not needed.
                target = re.sub(r"^[^/]+\\.data/(purelib|platlib)/", "", name)
                if ".data/" in target.split("/", 2)[0] + "/" or any(re.search(each, target) for each in SKIPPED):
                    continue
                path = (unfinished / target).resolve()
                if unfinished.resolve() not in path.parents and path != unfinished.resolve():
                    return f"{{wheel.name}} is unsafe: it names {{name}}"
                if name.endswith("/"):
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(name) as source, path.open("wb") as file:
                    shutil.copyfileobj(source, file)
    shutil.rmtree(site, ignore_errors=True)
    os.rename(unfinished, site)
    print(f"installed in {{site}}; run {{HERE / 'triform'}}")


if __name__ == "__main__":
    problem = main()
    if problem:
        print(f"error: {{problem}}", file=sys.stderr)
        sys.exit(1)
'''

# What a device does without: what only trains, converts, tests or types; the second copy of ONNX Runtime's library; and
# what tokenizers needs to fetch from a hub.
MINIMAL = (
    r"^onnxruntime/(transformers|tools|quantization|datasets|backend)/",
    r"^onnxruntime/capi/libonnxruntime\.so",
    r"^numpy/(f2py|distutils|testing)/",
    r"(^|/)tests?/",
    r"\.pyi$",
    r"^(huggingface_hub|hf_xet|httpx2?|httpcore2?|h11|anyio|fsspec|tqdm|filelock|yaml|truststore|idna|certifi|google)[-/.]",
    r"^(flatbuffers|packaging|typing_extensions|pygments)[-/.]",
)
# Distributions that are left out whole by the above; their wheels are not packed.
LEFT_OUT = (
    "huggingface_hub", "hf_xet", "httpx2", "httpx", "httpcore2", "httpcore", "h11", "anyio", "fsspec", "tqdm",
    "filelock", "pyyaml", "truststore", "idna", "certifi", "protobuf", "flatbuffers",
)  # fmt: skip


def install_py(python: str, processor: str, skipped: Sequence[str]) -> str:
    """The installer.

    Args:
        python: the version of Python that the wheels are for.
        processor: the end of the platform's name that they are for; empty for any.
        skipped: regular expressions of the files that are not unpacked.
    """
    return INSTALL_PY.format(python=python, processor=processor, skipped=list(skipped))


def readme(bundles: Iterable[str], python: str, platform: str) -> str:
    """What to do with the pack."""
    names = list(bundles)
    return (
        f"For Python {python} on {platform}. Nothing is downloaded.\n\n"
        "    sh install.sh\n"
        f"    ./triform inspect bundles/{names[0]}\n\n"
        f"Bundles: {', '.join(names)}. `./triform --help` lists the commands.\n"
        "SHA256SUMS holds the hash of every other file; install.sh checks them.\n"
    )
