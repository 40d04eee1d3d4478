"""Packs what a GPU machine without a package registry lacks into archives that travel in calls of 64 MiB.

    python benchmarks/gpu/pack.py runtime TARGET ONNXRUNTIME_GPU.whl [WHEEL ...]   # onnxruntime and other wheels
    python benchmarks/gpu/pack.py genai TARGET GENAI_CUDA.whl ONNXRUNTIME_GPU.whl  # the peer onnxruntime-genai
    python benchmarks/gpu/pack.py files TARGET NAME=PATH ...                       # bundles and other files

Writes TARGET/runtime.tar.xz, genai.tar.xz or files.tar.xz. An archive that is larger than a call allows is split into
.00, .01 and so on. `unpack.sh` unpacks them there, beside triform from the checkout that travels with every call. CUDA
libraries keep the code for Hopper GPUs only. Needs the `zstd` command.
"""

from __future__ import annotations

import argparse
import lzma
import shutil
import tarfile
import tempfile
import zipfile
from pathlib import Path

from prune_cuda import prune

HOPPER = 90
# A call carries 64 MiB, and the checkout takes 5.4 of them.
PART_SIZE = 58 * 2**20
# Libraries are most of what is packed: the first filter makes their jumps alike.
FILTERS = [{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 2**27}]
# What onnxruntime's Python module does without; genai links to the first.
SHARED_LIBRARY, NOT_NEEDED = "libonnxruntime.so.*", ("libonnxruntime_providers_tensorrt.so", "ThirdPartyNotices.txt")


def pack_runtime(folder: Path, onnxruntime: Path, wheels: list[Path]) -> None:
    """Put onnxruntime's Python module and the wheels into `folder`/site."""
    site = folder / "site"
    for wheel in (onnxruntime, *wheels):
        _unpack(wheel, site)
    for library in (site / "onnxruntime" / "capi").glob(SHARED_LIBRARY):
        library.unlink()


def pack_genai(folder: Path, genai: Path, onnxruntime: Path) -> None:
    """Put onnxruntime-genai and the library of onnxruntime that it links to into `folder`/site."""
    _unpack(genai, folder / "site")
    with zipfile.ZipFile(onnxruntime) as archive:
        for name in archive.namelist():
            if Path(name).match(SHARED_LIBRARY):
                archive.extract(name, folder / "site")


def pack_files(folder: Path, named: list[str]) -> None:
    """Put each file or folder of `NAME=PATH` into `folder`/files under its name."""
    for item in named:
        name, _, path = item.partition("=")
        target = folder / "files" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if Path(path).is_dir() else shutil.copyfile)(path, target)


def write_archive(folder: Path, path: Path) -> list[Path]:
    """Compress a folder to `path`, in parts if it is larger than a call allows; returns the files written."""
    for old in path.parent.glob(f"{path.name}*"):
        old.unlink()
    # Under another name until it is whole: nobody unpacks half an archive.
    whole = path.with_name(f"writing-{path.name}")
    with lzma.open(whole, "wb", filters=FILTERS) as stream, tarfile.open(fileobj=stream, mode="w|") as archive:
        archive.add(folder, ".")
    if whole.stat().st_size <= PART_SIZE:
        return [whole.rename(path)]
    parts = []
    with whole.open("rb") as stream:
        while content := stream.read(PART_SIZE):
            parts.append(path.with_name(f"{path.name}.{len(parts):02d}"))
            parts[-1].write_bytes(content)
    whole.unlink()
    return parts


def _unpack(wheel: Path, site: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
        names = [site / name for name in archive.namelist()]
    for path in names:
        if path.name in NOT_NEEDED:
            path.unlink()
        elif ".so" in path.suffixes:
            prune(path, HOPPER)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    runtime = commands.add_parser("runtime")
    runtime.add_argument("target", type=Path)
    runtime.add_argument("onnxruntime", type=Path)
    runtime.add_argument("wheels", type=Path, nargs="*")
    genai = commands.add_parser("genai")
    genai.add_argument("target", type=Path)
    genai.add_argument("genai", type=Path)
    genai.add_argument("onnxruntime", type=Path)
    files = commands.add_parser("files")
    files.add_argument("target", type=Path)
    files.add_argument("named", metavar="NAME=PATH", nargs="+")
    return parser.parse_args()


def main() -> None:
    """Pack what the command line names, and print the sizes."""
    arguments = _arguments()
    arguments.target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        if arguments.command == "runtime":
            pack_runtime(Path(work), arguments.onnxruntime, arguments.wheels)
        elif arguments.command == "genai":
            pack_genai(Path(work), arguments.genai, arguments.onnxruntime)
        else:
            pack_files(Path(work), arguments.named)
        for part in write_archive(Path(work), arguments.target / f"{arguments.command}.tar.xz"):
            print(f"{part}  {part.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
