"""Resolves a hub id to a folder: the snapshot in the hub's cache, with every file that an export reads.

HF_HOME sets the cache, HF_HUB_OFFLINE forbids downloads, HF_TOKEN authenticates the user.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    IncompleteSnapshotError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from triform.export.checkpoint.files.json_files import content_of
from triform.models.errors import first_line
from triform.runtime.errors import ExportError

# Files that are not settings: weights, which are chosen below, files of other frameworks, media.
_NOT_SETTINGS = (
    "*.safetensors", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.ot", "*.gguf", "*.ggml", "*.npz",
    "*.npy", "*.tflite", "*.pb", "*.onnx", "*.onnx_data*", "*.mlmodel", "*.mlpackage/*", "*.pkl", "*.pickle",
    "*.parquet", "*.arrow", "*.zip", "*.gz", "*.tar", "*.png", "*.jpg", "*.jpeg", "*.gif", "*.webp", "*.svg", "*.pdf",
    "*.mp3", "*.mp4", "*.wav", "*.flac",
    "onnx/*", "openvino/*", "coreml/*", "original/*", "runs/*", "checkpoint-*/*", "global_step*/*",
)  # fmt: skip
_CODE = ("*.py",)
# Stems of weight file names: a model's, and an adapter's.
_STEMS = (("model", "pytorch_model"), ("adapter_model",))


def is_hub_id(text: str) -> bool:
    """Whether a source may be a hub id: organization/name, or a name alone."""
    try:
        validate_repo_id(text)
    except HFValidationError:
        return False
    return True


class _UnreachableError(Exception):
    """The hub did not answer; says why."""


def fetch(repository: str, revision: str | None, *, weights: bool, code: bool) -> Path:
    """Download what is missing of a repository's snapshot; return its folder.

    Args:
        repository: its id on the hub.
        revision: a branch, a tag or a commit; the main branch when None.
        weights: whether to include the weights.
        code: whether to include Python files.

    Raises:
        ExportError: it does not exist, may not be read, or is not in the cache while the hub cannot be reached.
    """
    try:
        names = _names_of(repository, revision)
    except _UnreachableError as error:
        return _cached(repository, revision, [*_NOT_SETTINGS, *([] if code else _CODE)], str(error))
    folder = _downloaded(repository, revision, settings_of(names, code=code))
    if weights:
        folder = _downloaded(repository, revision, weights_of(names, ["", *module_folders(folder)]))
    return folder


def fetch_files(repository: str, revision: str | None, pattern: str) -> Path:
    """Download the files that match a pattern, such as all parts of a GGUF file; return the snapshot's folder.

    Raises:
        ExportError: as `fetch`, or the repository has no such file.
    """
    try:
        names = _names_of(repository, revision)
    except _UnreachableError as error:
        return _cached(repository, revision, ["*"], str(error))
    matching = [name for name in names if fnmatch(name, pattern)]
    if not matching:
        raise ExportError(f"{repository} has no file {pattern}")
    return _downloaded(repository, revision, matching)


def settings_of(names: Iterable[str], *, code: bool = False) -> list[str]:
    """The files of a repository that say how a model is used: configs, tokenizers, templates.

    Args:
        names: of all its files.
        code: whether to include Python files.
    """
    ignored = _NOT_SETTINGS if code else (*_NOT_SETTINGS, *_CODE)
    return [name for name in names if not any(fnmatch(name, pattern) for pattern in ignored)]


def weights_of(names: Iterable[str], folders: Iterable[str]) -> list[str]:
    """The files of a repository that hold weights, each weight once.

    Args:
        names: of all its files.
        folders: that hold weights; the repository itself is "".
    """
    paths = [PurePosixPath(name) for name in names]
    files: list[str] = []
    for folder in folders:
        inside = [path for path in paths if str(path.parent) == (folder or ".")]
        for stems in _STEMS:
            files += _preferred(inside, stems)
    return files


def module_folders(folder: Path) -> list[str]:
    """The folders that a snapshot's modules.json names."""
    modules = content_of(folder / "modules.json")
    listed = modules if isinstance(modules, list) else []
    return sorted({str(module["path"]) for module in listed if isinstance(module, dict) and module.get("path")})


def _preferred(paths: list[PurePosixPath], stems: tuple[str, ...]) -> list[str]:
    """The files of one format, safetensors where there are any: one file, or shards."""
    names = (*stems, *(f"{stem}-*-of-*" for stem in stems))
    for format_ in ("safetensors", "bin"):
        files = [str(path) for path in paths if any(fnmatch(path.name, f"{name}.{format_}") for name in names)]
        if files:
            return files
    return []


def _names_of(repository: str, revision: str | None) -> list[str]:
    """The names of all files.

    Raises:
        ExportError: the hub knows no such repository or revision, or does not let it be read.
        _UnreachableError: there is no answer.
    """
    try:
        info = HfApi().model_info(repository, revision=revision, timeout=10)
        return [file.rfilename for file in info.siblings or ()]
    except GatedRepoError:
        raise ExportError(f"{repository} is gated: accept its terms on the hub and set HF_TOKEN") from None
    except RevisionNotFoundError:
        raise ExportError(f"{repository} has no revision {revision}") from None
    except RepositoryNotFoundError:
        raise ExportError(
            f"{repository} is neither a folder here nor a model on the hub; if it is private, set HF_TOKEN"
        ) from None
    except OfflineModeIsEnabled:
        raise _UnreachableError("HF_HUB_OFFLINE is set") from None
    except Exception as error:  # the client's transport has errors of its own
        raise _UnreachableError(first_line(error)) from error


def _cached(repository: str, revision: str | None, ignored: list[str], reason: str) -> Path:
    """The cached snapshot, complete except for the `ignored` files."""
    try:
        return Path(snapshot_download(repository, revision=revision, ignore_patterns=ignored, local_files_only=True))
    except IncompleteSnapshotError:
        raise ExportError(
            f"{repository} is only partly in the hub's cache, and the hub cannot be reached ({reason}); fetch it online"
        ) from None
    except LocalEntryNotFoundError:
        at = "" if revision is None else f" at revision {revision}"
        raise ExportError(
            f"{repository} is neither a folder here nor in the hub's cache{at}, and the hub cannot be reached "
            f"({reason}); fetch it online, or give a folder"
        ) from None


def _downloaded(repository: str, revision: str | None, names: list[str]) -> Path:
    try:
        return Path(
            snapshot_download(repository, revision=revision, allow_patterns=[glob.escape(name) for name in names])
        )
    except Exception as error:  # errors of many libraries come through here
        raise ExportError(f"{repository} cannot be fetched: {first_line(error)}") from error
