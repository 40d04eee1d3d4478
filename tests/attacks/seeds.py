"""Whole files of every kind that Triform reads, made anew by each process: what the fuzzers damage.

Nothing is stored: a file of a kind is a few lines here, and what is written is what today's code and libraries write.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import tempfile
from functools import cache
from pathlib import Path

import numpy as np

MANIFESTS = sorted((Path(__file__).parent.parent / "runtime" / "bundle" / "manifests").glob("*.json"))
_RATE = 16000
# libsndfile's formats that are read, with a subtype that each has.
_SOUNDS = {
    "WAV": ("PCM_16", "FLOAT", "IMA_ADPCM", "ULAW"), "WAVEX": ("PCM_24",), "RF64": ("PCM_16",), "W64": ("PCM_16",),
    "FLAC": ("PCM_16",), "OGG": ("VORBIS", "OPUS"), "MP3": ("MPEG_LAYER_III",), "AIFF": ("PCM_16", "FLOAT"),
    "AU": ("PCM_16",), "CAF": ("PCM_16", "ALAC_16"), "NIST": ("PCM_16",), "VOC": ("PCM_16",), "SVX": ("PCM_16",),
    "IRCAM": ("PCM_16",), "AVR": ("PCM_16",), "PAF": ("PCM_16",), "PVF": ("PCM_16",), "HTK": ("PCM_16",),
    "MAT4": ("PCM_16",), "MAT5": ("PCM_16",), "MPC2K": ("PCM_16",), "WVE": ("ALAW",), "XI": ("DPCM_16",),
}  # fmt: skip
_CONTAINERS = {"m4a": "aac", "mkv": "pcm_s16le", "mov": "pcm_s16le", "mpegts": "mp2", "avi": "pcm_s16le"}
_TEMPLATES = (
    "{% for message in messages %}{{ '<|' + message.role + '|>' + message['content'] | trim }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}",
    "{%- set ns = namespace(found=false, text='') -%}{%- for m in messages[1:] if m.role != 'system' -%}"
    "{%- set ns.text = ns.text ~ m.content.split('</think>')[-1].lstrip('\\n') -%}{%- endfor -%}"
    "{{ ns.text | tojson }}",
    "{% macro show(x, n=2) %}{{ x | upper | replace('A', 'b') ~ n }}{% endmacro %}{% if tools %}"
    "{{ tools | tojson(indent=2) }}{% elif messages | length > 1 and not messages[0].content is string %}"
    "{{ raise_exception('no') }}{% endif %}{{ show(messages[0]['content'], n=3) }}{{ strftime_now('%Y') | length }}",
    "{{ 'a'.center(20) ~ '%s %5d' | format('x', 7) ~ messages | map(attribute='role') | join(', ') }}"
    "{{ 1 + 2 * 3 ** 2 }}{{ [1, 2][-1:] }}{{ {'a': 1}.items() | list }}{{ 'x' * 3 }}"
    "{{ range(3) | sort(reverse=true) }}{# note #}",
)
_CONFIGS = (
    {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 48, "intermediate_size": 80,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 12, "vocab_size": 260,
        "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 1e4, "hidden_act": "silu",
        "dtype": "float32",
        "tie_word_embeddings": True, "attention_bias": False, "bos_token_id": 0, "eos_token_id": [1],
        "pad_token_id": None,
        "initializer_range": 0.02, "use_cache": True,
        "rope_scaling": {
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    },
    {
        "architectures": ["BertForSequenceClassification"], "model_type": "bert", "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 100, "max_position_embeddings": 64,
        "type_vocab_size": 2, "layer_norm_eps": 1e-12, "hidden_act": "gelu", "id2label": {"0": "bad", "1": "good"},
        "label2id": {"bad": 0, "good": 1}, "position_embedding_type": "absolute", "torch_dtype": "float16",
        "pad_token_id": 0, "problem_type": "single_label_classification",
    },
    {
        "architectures": ["T5ForConditionalGeneration"], "model_type": "t5", "d_model": 32, "d_kv": 8, "d_ff": 64,
        "num_layers": 2, "num_decoder_layers": 2, "num_heads": 4, "relative_attention_num_buckets": 32,
        "vocab_size": 100,
        "relative_attention_max_distance": 128, "feed_forward_proj": "gated-gelu", "is_encoder_decoder": True,
        "decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0, "layer_norm_epsilon": 1e-6,
        "task_specific_params": {"translation_en_to_de": {"prefix": "translate English to German: ", "num_beams": 4}},
    },
)  # fmt: skip
GENERATION = {
    "bos_token_id": 0, "eos_token_id": [1, 2], "do_sample": True, "temperature": 0.7, "top_k": 50, "top_p": 0.9,
    "repetition_penalty": 1.1, "max_length": 100, "suppress_tokens": [3, 4], "bad_words_ids": [[5, 6]], "num_beams": 2,
    "stop_strings": ["x"], "forced_bos_token_id": 3, "transformers_version": "5.0.0",
}  # fmt: skip


@cache
def manifests() -> list[dict]:
    """Manifests of every form."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in MANIFESTS]


def configs() -> tuple[dict, ...]:
    """config.json of each form."""
    return _CONFIGS


def templates() -> list[bytes]:
    """Chat templates."""
    return [template.encode() for template in _TEMPLATES]


@cache
def tokenizers() -> list[dict]:
    """tokenizer.json of each kind."""
    from tests.helpers.small_tokenizers import MAKERS

    return [json.loads(make().to_str()) for make in MAKERS.values()]


@cache
def records() -> list[tuple[str, bytes]]:
    """Files of records, each with its name."""
    rows = [{"text": "one, two", "id": 1, "note": "ä\n"}, {"text": 'say "x"', "id": None, "note": ""}]
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    chats = [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": [{"type": "text"}]}]}]
    lines = "".join(json.dumps(row) + "\n" for row in rows + chats)
    return [
        ("a.jsonl", lines.encode()), ("a.json", json.dumps([*rows, "plain"], indent=1).encode()),
        ("a.csv", table.getvalue().encode()), ("a.tsv", b"text\tid\r\n\"a\tb\"\t1\r\nc\t2\r\n"),
        ("a.txt", "one\n\ntwo ä\r\n{\"text\": 1}\n".encode()), ("b.txt", "ein Wort\nzwei\n".encode("utf-16")),
        ("c.csv", "text;x\n".encode("utf-32")),
    ]  # fmt: skip


@cache
def conversations() -> list[dict]:
    """Conversations and lists of tools, as files have them."""
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
    return [
        {
            "messages": [
                {"role": "system", "content": "a"},
                {"role": "user", "content": [{"type": "text", "text": "b"}]},
                call,
            ]
        }
    ]


@cache
def sounds() -> list[bytes]:
    """Short sounds in each format."""
    import soundfile

    samples = (np.sin(np.arange(600) / 7) / 2).astype(np.float32)
    made = []
    for kind, subtypes in _SOUNDS.items():
        for subtype in subtypes:
            rate = 8000 if kind == "WVE" else 44100 if kind == "XI" else _RATE
            buffer = io.BytesIO()
            soundfile.write(buffer, samples, rate, format=kind, subtype=subtype)
            made.append(buffer.getvalue())
    return [*made, *(_contained(kind, codec) for kind, codec in _CONTAINERS.items())]


def _contained(kind: str, codec: str) -> bytes:
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format={"m4a": "mp4", "mkv": "matroska"}.get(kind, kind)) as container:
        stream = container.add_stream(codec, rate=_RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.int16), format="s16", layout="mono")
        frame.sample_rate = _RATE
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return buffer.getvalue()


@cache
def pictures() -> list[bytes]:
    """Small pictures in each format and mode."""
    from PIL import Image

    pixels = np.arange(12 * 9 * 3, dtype=np.uint8).reshape(9, 12, 3)
    image = Image.fromarray(pixels)
    made = []
    for kind, modes in {
        "PNG": ("RGB", "P", "LA", "I;16", "1"), "JPEG": ("RGB", "L", "CMYK"), "BMP": ("RGB", "P"), "GIF": ("P",),
        "PPM": ("RGB", "L"), "WEBP": ("RGB", "RGBA"), "TIFF": ("RGB", "L", "CMYK", "1"),
    }.items():  # fmt: skip
        for mode in modes:
            shown = Image.fromarray(pixels[..., 0].astype(np.uint16)) if mode == "I;16" else image.convert(mode)
            buffer = io.BytesIO()
            exif = Image.Exif()
            exif[0x0112] = 6
            shown.save(buffer, kind, **({"exif": exif} if kind in ("JPEG", "PNG", "WEBP", "TIFF") else {}))
            made.append(buffer.getvalue())
    return made


@cache
def search_index() -> dict[str, bytes]:
    """The files of a search index of three texts."""
    texts = [json.dumps([number, text]).encode() + b"\n" for number, text in enumerate(("one", "zwei", "x y"), 1)]
    buffer = io.BytesIO()
    np.save(buffer, np.eye(3, 4, dtype=np.float32))
    offsets = np.cumsum([len(text) for text in texts]).astype("<i8").tobytes()
    files = {"vectors.npy": buffer.getvalue(), "texts.jsonl": b"".join(texts), "offsets.bin": offsets}
    info = {"version": 2, "bundle": "0" * 64, "source": None, "field": None, "prompt": "", "count": 3, "dimension": 4}
    return resealed({**files, "index.json": json.dumps({**info, "files": {}}).encode()})


def resealed(files: dict[str, bytes]) -> dict[str, bytes]:
    """An index with hashes that agree with its files; unchanged where index.json is no object."""
    from triform.runtime.checked_json import sealed
    from triform.runtime.encoder.vectors.search_index import describe_file

    try:
        info = json.loads(files["index.json"])
        info.pop("index_sha256", None)
        with tempfile.TemporaryDirectory() as folder:
            for name in ("vectors.npy", "texts.jsonl", "offsets.bin"):
                (Path(folder) / name).write_bytes(files[name])
                info.setdefault("files", {})[name] = dataclasses.asdict(describe_file(Path(folder) / name))
        return {**files, "index.json": sealed(info, "index_sha256").encode("utf-8", "surrogatepass")}
    except (ValueError, TypeError, AttributeError, RecursionError):
        return files


@cache
def prompt_cache(folder: Path) -> tuple[object, bytes]:
    """A bundle's manifest, and a prompt cache of it."""
    from triform.runtime.bundle.reading import read_manifest
    from triform.runtime.decoder.prompt_cache import write_prompt_cache

    folder.mkdir(exist_ok=True)
    source = next(path for path in MANIFESTS if path.stem == "decoder")
    (folder / "manifest.json").write_bytes(source.read_bytes())
    manifest = read_manifest(folder)
    ids = [1, 2, 3]
    arrays = {
        f"{index}.{kind}": np.full((layer.num_key_value_heads, len(ids), layer.head_dim), index + 0.5, np.float32)
        for index, layer in enumerate(manifest.cache.layers)
        for kind in ("key", "value")
    }
    write_prompt_cache(folder / "cache", manifest, ids, arrays)
    return manifest, (folder / "cache").read_bytes()


@cache
def packed_weights() -> tuple[dict, bytes]:
    """A list of packed weights in graph.data, and this file: constants of 3, 5 and 6 bits, two of them the same."""
    fields = {
        "a": [[2, 2], [2, 6], [1, 1], [1, 5]],
        "b": [[4, 4], [1, 3]],
        "c": [[4, 4], [2, 2]],
        "d": [[4, 4], [2, 2]],
    }
    shapes, offsets = {"a": [2, 8], "b": [8, 1, 3], "c": [16], "d": [4, 4]}, {"a": 0, "b": 12, "c": 27, "d": 27}
    constants = {
        name: {"file": "graph.data", "shape": shapes[name], "offset": offsets[name], "fields": fields[name]}
        for name in fields
    }
    return constants, bytes(range(100, 139))


@cache
def weights() -> list[tuple[str, bytes]]:
    """Files of weights, each with its name."""
    import torch
    from safetensors.numpy import save

    arrays = {"a.weight": np.arange(12, dtype=np.float32).reshape(3, 4), "b": np.zeros((2, 0), np.float16)}
    buffer = io.BytesIO()
    torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, buffer)
    return [
        ("model.safetensors", save(arrays, {"format": "pt"})),
        ("pytorch_model.bin", buffer.getvalue()),
    ]


@cache
def ggufs() -> list[bytes]:
    """Small GGUF files of several architectures."""
    from tests.checkpoints.gguf_files import make_model, write_gguf

    made = []
    with tempfile.TemporaryDirectory() as folder:
        for name in ("llama", "gpt2", "bert"):
            path = Path(folder) / f"{name}.gguf"
            write_gguf(path, name, make_model(name))
            made.append(path.read_bytes())
    return made


@cache
def word_vectors() -> list[bytes]:
    """Tables of word vectors: GloVe's text format and Word2Vec's."""
    lines = ["the 0.1 0.2 0.3", "ship -1e-3 2 3", "ä 0 0 1"]
    return ["\n".join(lines).encode() + b"\n", "\n".join(["3 3", *lines]).encode() + b"\n"]
