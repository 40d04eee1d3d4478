"""What is attacked: for each kind of file a function that damages one as some bytes say, and reads it.

It ends where the file is read, or refused by a `TriformError` of one line. Whatever else it raises is a defect, and so
is a file with a checksum that is read although it says something else.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np

from tests.attacks import seeds
from tests.attacks.edits import Choices, edited_bytes, edited_json
from tests.helpers.bundles import sealed
from triform.runtime.errors import TriformError
from triform.runtime.printable import one_line

# A case has a folder of its own kind, and a file for each name.
Target = Callable[[Choices, Path], None]
# Longer messages are no line that anybody reads; the longest lists of languages have this many.
_LONGEST = 4000
_MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "a\nb"}]


def attempt(target: Target, data: bytes, folder: Path) -> str | None:
    """Run a case.

    Args:
        target: one of `TARGETS`.
        data: which edits.
        folder: to write to.

    Returns:
        the message of the refusal; None where the file is read.
    """
    try:
        target(Choices(data), folder)
    except TriformError as error:
        message = str(error)
        if one_line(message) != message or not 0 < len(message) <= _LONGEST:
            raise AssertionError(f"not one line: {message!r}") from error
        return message
    return None


def _json_bytes(value: object) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


def _written(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def manifest(choices: Choices, folder: Path) -> None:
    """Manifests with other values, and hashes that agree with them."""
    from triform.runtime.bundle.reading import read_manifest

    content = edited_json(choices.of(seeds.manifests()), choices)
    content.pop("manifest_sha256", None)
    _written(folder, "manifest.json", sealed(content).encode("utf-8", "surrogatepass"))
    read_manifest(folder)


def manifest_bytes(choices: Choices, folder: Path) -> None:
    """Manifests with other bytes, which are always refused: their own hash tells."""
    from triform.runtime.bundle.reading import read_manifest

    whole = choices.of(seeds.MANIFESTS).read_bytes()
    content = edited_bytes(whole, choices)
    _written(folder, "manifest.json", content)
    read_manifest(folder)
    assert content == whole, "another manifest was accepted"


def config(choices: Choices, folder: Path) -> None:
    """config.json and generation_config.json with other values, in a dry run of the export."""
    from triform.export.pipeline import plan

    name, kinds = choices.of((("config.json", seeds.configs()), ("generation_config.json", [seeds.GENERATION])))
    _written(folder, "config.json", _json_bytes(choices.of(seeds.configs())))
    _written(folder, "generation_config.json", _json_bytes(seeds.GENERATION))
    _written(folder, name, _json_bytes(edited_json(choices.of(kinds), choices)))
    plan(folder)


def config_bytes(choices: Choices, folder: Path) -> None:
    """config.json with other bytes, in a dry run of the export."""
    from triform.export.pipeline import plan

    _written(folder, "config.json", edited_bytes(_json_bytes(choices.of(seeds.configs())), choices))
    plan(folder)


def weights(choices: Choices, folder: Path) -> None:
    """safetensors and pytorch_model.bin with other bytes."""
    from triform.export.checkpoint.files.weights import find_weights, load_tensors, tensor_names

    name, content = choices.of(seeds.weights())
    others = [other for _, other in seeds.weights()]
    path = _written(folder, name, edited_bytes(content, choices, others))
    try:
        files = find_weights(folder)
        tensor_names(files)
        load_tensors(files)
    finally:
        path.unlink()


def packed(choices: Choices, folder: Path) -> None:
    """Lists of packed weights with other values or bytes, or data that is cut: the bits in no field are zero."""
    from triform.runtime.graphs.packed_weights import packed_list, unpacked_weights

    constants, data = seeds.packed_weights()
    kept = choices.of((len(data), len(data), len(data) - 1, 0))
    content = _json_bytes(edited_json(constants, choices) if choices.of((True, False)) else constants)
    _written(folder, packed_list(folder / "graph.onnx").name, edited_bytes(content, choices))
    _written(folder, "graph.data", data[:kept])
    found = unpacked_weights(folder / "graph.onnx")
    told = json.loads(packed_list(folder / "graph.onnx").read_bytes())
    for name, array in found.items():
        mask = sum({1 << place + bit for width, place in told[name]["fields"] for bit in range(width)})
        assert array.shape == tuple(told[name]["shape"]) and array.dtype == np.uint8
        assert not (array & (255 - mask)).any(), f"{name} has bits in no field"


def gguf(choices: Choices, folder: Path) -> None:
    """GGUF files with other bytes: opened, in a dry run of the export, and their tokenizer."""
    from triform.export.checkpoint.gguf.loading import load_gguf_tokenizer
    from triform.export.pipeline import plan

    content = choices.of(seeds.ggufs())
    head, tensors = content[:8000], content[8000:]
    path = _written(folder, "model.gguf", edited_bytes(head, choices, seeds.ggufs()) + tensors)
    plan(path)
    try:
        load_gguf_tokenizer(path)
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError):
        # An export says in one line that a value is of the wrong type.
        return


def word_vectors(choices: Choices, folder: Path) -> None:
    """Text files of word vectors with other bytes."""
    from triform.export.checkpoint.sentence.static_vectors import is_static, read_table

    path = _written(folder, "words.txt", edited_bytes(choices.of(seeds.word_vectors()), choices))
    if is_static(path):
        table = read_table(path)
        assert np.isfinite(table.vectors.numpy()).all()


def tokenizer(choices: Choices, folder: Path) -> None:
    """tokenizer.json with other values: read, and used on texts and tokens."""
    from triform.runtime.text.tokenizer import load_tokenizer

    content = edited_json(choices.of(seeds.tokenizers()), choices)
    read = load_tokenizer(_written(folder, "tokenizer.json", _json_bytes(content)))
    for text in ("", "the ship's sail, ä 中\U0001f600\u0301\n"):
        read.decode(read.encode(text, add_special_tokens=True).ids)
    read.decode(list(range(0, 300, 7)), skip_special_tokens=False)


def tokenizer_bytes(choices: Choices, folder: Path) -> None:
    """tokenizer.json with other bytes."""
    from triform.runtime.text.tokenizer import load_tokenizer

    content = edited_bytes(_json_bytes(choices.of(seeds.tokenizers())), choices)
    read = load_tokenizer(_written(folder, "tokenizer.json", content))
    read.decode(read.encode("the ship's sail").ids)


def template(choices: Choices, folder: Path) -> None:
    """Chat templates with other bytes, of which parts may come from another template."""
    from triform.runtime.decoder.chat_template import render_chat

    source = edited_bytes(choices.of(seeds.templates()), choices, seeds.templates())
    render_chat(source.decode("utf-8", "replace"), _MESSAGES, {"bos_token": "<s>"}, tools=[{"type": "function"}])


def records(choices: Choices, folder: Path) -> None:
    """Files of lines, JSON lines, JSON lists and tables with other bytes."""
    from triform.cli.inputs.records import Records

    name, content = choices.of(seeds.records())
    field, skip = choices.of((None, None, "text", "note")), choices.of((False, True))
    path = _written(folder, name, edited_bytes(content, choices, [other for _, other in seeds.records()]))
    read = Records([], path, field, skip, fields=("messages", "text"))
    for record in read:
        record.text.encode("utf-8")
    read.check()


def conversation(choices: Choices, folder: Path) -> None:
    """Files of conversations and of tools with other values, rendered."""
    from triform.runtime.decoder.chat_template import render_chat
    from triform.runtime.decoder.conversation_file import read_conversation

    content = edited_json(choices.of(seeds.conversations()), choices)
    messages = read_conversation(_written(folder, "chat.json", _json_bytes(content)))
    render_chat(seeds.templates()[0].decode(), messages, {})


def sound(choices: Choices, folder: Path) -> None:
    """Sound files of all formats with other bytes, resampled."""
    from triform.runtime.media.audio import open_audio

    content = edited_bytes(choices.of(seeds.sounds()), choices, seeds.sounds())
    with open_audio(content, lambda warning: None) as audio:
        # A header may claim hours; what a device does with them takes as long as it takes.
        left = 20
        for block in audio.blocks(16000):
            assert np.isfinite(block).all()
            left -= 1
            if not left:
                break


def picture(choices: Choices, folder: Path) -> None:
    """Pictures of all formats with other bytes."""
    from triform.runtime.media.image import read_image

    image = read_image(edited_bytes(choices.of(seeds.pictures()), choices, seeds.pictures()))
    assert image.mode == "RGB"


def search_index(choices: Choices, folder: Path) -> None:
    """A search index with other bytes: refused, or where all hashes were made to agree, searched."""
    from triform.runtime.encoder.vectors.search_index import SearchIndex

    whole = seeds.search_index()
    name, agree = choices.of(sorted(whole)), choices.of((False, True))
    files = {**whole, name: edited_bytes(whole[name], choices, list(whole.values()))}
    for file, content in (seeds.resealed(files) if agree else files).items():
        _written(folder, file, content)
    SearchIndex(folder, "always").search(np.eye(2, 4, dtype=np.float32), 2)
    assert agree or files == whole, "another index was accepted"


def prompt_cache(choices: Choices, folder: Path) -> None:
    """A prompt cache with other bytes, which is always refused."""
    from triform.runtime.decoder.prompt_cache import read_prompt_cache

    info, whole = seeds.prompt_cache(folder)
    content = edited_bytes(whole, choices)
    ids, arrays = read_prompt_cache(_written(folder, "damaged", content), info)
    assert ids == [1, 2, 3]
    assert all(
        float(array.min()) == float(array.max()) == int(name[: name.index(".")]) + 0.5 for name, array in arrays.items()
    )


def vector_files(choices: Choices, folder: Path) -> None:
    """Files of vectors that were not finished, and their logs, with other bytes: continued to the end."""
    name = choices.of(("v.npy", "v.raw", "v.jsonl"))
    whole = _unfinished_vectors(name, folder)
    damaged = choices.of(sorted(whole))
    for file, content in whole.items():
        _written(folder, file, edited_bytes(content, choices) if file == damaged else content)
    try:
        _embed(name, folder, [1, 2, 3], resume=True)
        if name == "v.npy":
            assert np.load(folder / name).shape == (3, 4)
    finally:
        for file in (name, *whole):
            (folder / file).unlink(missing_ok=True)


@cache
def _unfinished_vectors(name: str, folder: Path) -> dict[str, bytes]:
    """What a run leaves that is stopped after two vectors."""
    _written(folder, "manifest.json", b"{}")
    with suppress(InterruptedError):
        _embed(name, folder, [1, 2, None], resume=False)
    return {path.name: path.read_bytes() for path in folder.glob(f"{name}.part*")}


def _embed(name: str, folder: Path, values: list[int | None], *, resume: bool) -> None:
    from triform.cli.inputs.records import Record
    from triform.cli.outputs.run_log import Run
    from triform.cli.outputs.vectors_file import lines_of_vectors, rows_of_vectors

    output, run = folder / name, Run(folder, {"prompt": "x"})
    inputs = [(Record(number, f"text {value}"), value) for number, value in enumerate(values, 1)]
    with (
        lines_of_vectors("text", output, run, source=None, resume=resume)
        if name == "v.jsonl"
        else rows_of_vectors(4, "float32", output, run, npy=name == "v.npy", source=None, resume=resume)
    ) as file:
        for record, value in file.remaining(inputs):
            if value is None:
                raise InterruptedError
            file.write(record, np.full(4, value, np.float32))


def tools(choices: Choices, folder: Path) -> None:
    """Files of tools with other bytes."""
    from triform.cli.inputs.tools_file import read_tools

    read_tools(_written(folder, "tools.json", edited_bytes(_json_bytes(seeds.conversations()), choices)))


TARGETS: dict[str, Target] = {
    target.__name__: target
    for target in (
        manifest, manifest_bytes, config, config_bytes, weights, packed, gguf, word_vectors, tokenizer,
        tokenizer_bytes, template,
        records, conversation, sound, picture, search_index, prompt_cache, vector_files, tools,
    )
}  # fmt: skip
