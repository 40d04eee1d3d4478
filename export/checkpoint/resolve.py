"""Resolves a folder, a file or a hub id to a `Source`; afterwards nothing depends on which it was."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from triform.export.checkpoint.files import hub
from triform.export.checkpoint.files.json_files import content_of, read_object
from triform.export.checkpoint.files.packed.formats import packings_of
from triform.export.checkpoint.files.packed.packing import Packing
from triform.export.checkpoint.files.weights import find_weights
from triform.export.checkpoint.sentence.static_vectors import is_static
from triform.export.checkpoint.source import Source
from triform.export.paths import check_source
from triform.runtime.errors import ExportError, InputError

# A folder in the hub's cache is called by its commit, and the model by the repository's name.
_SNAPSHOT = re.compile(r"models--(?:.+--)?(?P<name>[^/]+)/snapshots/[^/]+")
# Parts of a split GGUF file after the first, which stands for all.
_LATER_PART = re.compile(r".*-(?!00001)\d{5}-of-\d{5}\.gguf")
_ADAPTER, _MODULES = "adapter_config.json", "modules.json"
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
# Where AutoGPTQ and AutoAWQ wrote their settings before transformers read quantization_config.
_SETTINGS_BESIDE = {"quantize_config.json": "gptq", "quant_config.json": "awq"}


@dataclass(frozen=True)
class _FindOptions:
    """Arguments of `find_checkpoint` besides the source."""

    trust_remote_code: bool
    weights: bool


def find_checkpoint(
    source: str, *, trust_remote_code: bool = False, revision: str | None = None, weights: bool = True
) -> Source:
    """Find a checkpoint and its parts without loading it; a hub id is downloaded.

    Args:
        source: a folder, a GGUF file, a file of word vectors, a hub id, or a GGUF file on the hub (org/name/file.gguf).
        trust_remote_code: whether Python files of a hub id are fetched, and code of the checkpoint may run.
        revision: of a hub id.
        weights: whether they are needed; if not, those of a hub id are not downloaded.

    Raises:
        ExportError: there is no such source, or it is not a model; says what it holds instead.
        InputError: a revision is given for something other than a hub id.
    """
    path, options = Path(source), _FindOptions(trust_remote_code, weights)
    if path.exists():
        if revision is not None:
            raise InputError(f"--revision is for hub ids; {source} is a {'folder' if path.is_dir() else 'file'}")
        return _file(path, options) if path.is_file() else _folder(path, _name_of(path), options)
    check_source(source)
    parts = PurePosixPath(source).parts
    if len(parts) > 2 and source.lower().endswith(".gguf") and hub.is_hub_id("/".join(parts[:2])):
        return _file(_hub_file("/".join(parts[:2]), "/".join(parts[2:]), revision), options)
    if not hub.is_hub_id(source):
        raise ExportError(f"{source} does not exist; give a model folder, a .gguf file or a hub id like org/name")
    snapshot = hub.fetch(source, revision, weights=weights, code=trust_remote_code)
    return _folder(snapshot, parts[-1], options)


def _name_of(folder: Path) -> str:
    in_the_cache = _SNAPSHOT.search(folder.absolute().as_posix())
    return in_the_cache["name"] if in_the_cache else folder.resolve().name


def _hub_file(repository: str, name: str, revision: str | None) -> Path:
    """A GGUF file of a repository, with the other parts where it is split."""
    pattern = re.sub(r"-\d{5}-of-", "-*-of-", name)
    path = hub.fetch_files(repository, revision, pattern) / name
    if not path.is_file():
        raise ExportError(f"{repository} has no file {name} in the hub's cache; fetch it online")
    return path


def _file(path: Path, options: _FindOptions) -> Source:
    size = path.stat().st_size
    if is_static(path):
        return Source(path.stem, path, path.parent, path.parent, size)
    if path.suffix.lower() != ".gguf":
        raise ExportError(
            f"{path} is a file but not a GGUF file, nor one of word vectors; give a model folder or a hub id"
        )
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ExportError(f"{path} is not a GGUF file: it does not begin with the bytes GGUF")
    return Source(path.stem, path, path.parent, path.parent, size, trust_remote_code=options.trust_remote_code)


def _folder(folder: Path, name: str, options: _FindOptions) -> Source:
    if not any(folder.iterdir()):
        raise ExportError(f"{folder} is empty; a model folder holds config.json and model.safetensors")
    if is_static(folder):
        size = sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
        return Source(name, folder, folder, folder, size)
    place = _model_folder(folder)
    if (place / "config.json").is_file():
        return _model(folder, place, name, options)
    if (place / _ADAPTER).is_file():
        return _adapter_alone(folder, place, name, options)
    if _gguf_files(folder):
        return _file(_only_gguf(folder), options)
    raise ExportError(f"{folder} is not a model: it has no config.json{_inside(folder)}")


def _inside(folder: Path) -> str:
    """Which folder to give instead, where one inside is a model: the root of a cached repository has it three below."""
    for pattern in ("*/config.json", "snapshots/*/config.json", "*/*/config.json"):
        found = sorted(path.parent for path in folder.glob(pattern))
        if found:
            return f"; {found[0]} has one"
    return ""


def _model(folder: Path, place: Path, name: str, options: _FindOptions) -> Source:
    packings = _packings(place)
    source = Source(name, folder, place, place, packings=packings, trust_remote_code=options.trust_remote_code)
    if (place / _ADAPTER).is_file():
        source = dataclasses.replace(source, adapter=place)
    if not options.weights:
        return source
    try:
        files = dataclasses.replace(find_weights(place), packings=packings)
    except ExportError:
        if not _gguf_files(folder):
            raise
        return _file(_only_gguf(folder), options)
    return dataclasses.replace(source, weights=files, size=files.size)


def _packings(folder: Path) -> tuple[Packing, ...]:
    """How the weights of a folder are packed, as its config says, or a file beside it."""
    content = content_of(folder / "config.json")
    settings = content.get("quantization_config") if isinstance(content, dict) else None
    if settings and not isinstance(settings, dict):
        return ()
    for name, method in _SETTINGS_BESIDE.items():
        beside = content_of(folder / name)
        if isinstance(beside, dict) and (not settings or settings.get("quant_method") == method):
            # The config may lack what the file says, such as which version of the format it is.
            return packings_of({"quant_method": method, **beside, **(settings or {})})
    return packings_of(settings) if settings else ()


def _model_folder(folder: Path) -> Path:
    """Where config.json and the weights are: the folder itself, or the one its modules.json names first.

    Raises:
        ExportError: it names a place outside.
    """
    modules = content_of(folder / _MODULES)
    first = modules[0] if isinstance(modules, list) and modules else None
    path = str(first.get("path") or "") if isinstance(first, dict) else ""
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise ExportError(f"{folder / _MODULES} names {path}, which is not inside the folder")
    return folder / path


def _adapter_alone(folder: Path, place: Path, name: str, options: _FindOptions) -> Source:
    """An adapter without its model, which its config names; a folder's own modules.json says what follows the model."""
    config = read_object(place / _ADAPTER)
    base = config.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise ExportError(f"{place} holds an adapter that names no base model (base_model_name_or_path)")
    if Path(base).resolve() in (folder.resolve(), place.resolve()):
        raise ExportError(f"{place} holds an adapter, which names itself as its base model")
    # A revision is written for a folder, too, which has none.
    revision = None if Path(base).exists() else config.get("revision")
    try:
        model = find_checkpoint(
            base, trust_remote_code=options.trust_remote_code, revision=revision, weights=options.weights
        )
    except (ExportError, InputError) as error:
        raise ExportError(f"{place} holds an adapter, and its base model cannot be used: {error}") from error
    if model.adapter is not None or model.gguf is not None:
        raise ExportError(f"{place} holds an adapter of {base}, which is no checkpoint that it can be merged into")
    own_tokenizer = any((place / file).is_file() for file in _TOKENIZER)
    return dataclasses.replace(
        model, name=name, adapter=place, path=folder if (folder / _MODULES).is_file() else model.path,
        tokenizer_folder=place if own_tokenizer else model.tokenizer_folder,
    )  # fmt: skip


def _gguf_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.gguf") if not _LATER_PART.fullmatch(path.name))


def _only_gguf(folder: Path) -> Path:
    files = _gguf_files(folder)
    if len(files) > 1:
        raise ExportError(f"{folder} holds several GGUF files; give one: {', '.join(path.name for path in files)}")
    return files[0]
