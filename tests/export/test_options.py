"""What an export may be asked for: the ends of ranges, defaults, and options that do not go together."""

from __future__ import annotations

import pytest

from triform.export.options import AUTO, BITS, KEEP, SHORTEST_CONTEXT, TARGETS, ExportOptions, bytes_of
from triform.runtime.errors import InputError


def test_names_of_schemes_say_their_bits():
    assert BITS == {"int8": 8, "int4": 4} and (AUTO, KEEP) == ("auto", "keep")


def test_defaults():
    options = ExportOptions()
    assert (options.quantize, options.accuracy_level, options.target, options.gpu_dtype) == (
        "auto",
        4,
        "cpu",
        "float16",
    )
    off = ("force", "trust_remote_code", "hidden_states", "word_timestamps", "fast", "fast_prompts")
    assert [getattr(options, name) for name in off] == [False] * len(off)
    assert options.goals == [] and options.calibrate == () and options.block_size is None


@pytest.mark.parametrize(
    ("target", "cpu", "gpu"), [("cpu", True, False), ("gpu", False, True), ("cpu,gpu", True, True)]
)
def test_targets(target, cpu, gpu):
    options = ExportOptions(target=target)
    assert (options.for_cpu, options.for_gpu) == (cpu, gpu)
    assert target in TARGETS


def test_what_a_gpu_computes_with():
    assert ExportOptions(target="gpu", dtype="bfloat16").gpu_dtype == "bfloat16"
    assert ExportOptions(target="cpu,gpu", dtype="float16").gpu_dtype == "float16"


@pytest.mark.parametrize(
    "values",
    [
        *({"block_size": size} for size in (16, 32, 64, 128, 256)), *({"accuracy_level": level} for level in range(5)),
        *({"quantize": name} for name in ("auto", "none", "keep", "int8", "int4")),
        {"context_length": SHORTEST_CONTEXT}, {"target_size": 1}, {"target_bits": 16}, {"target_bits": 1e-9},
        {"max_loss": 1}, {"max_loss": 1e-9}, {"quantize": "mixed", "max_loss": 0.5}, {"fast": True},
        {"fast_prompts": True}, {"fast_prompts": True, "target": "cpu,gpu"}, {"fast_prompts": True, "quantize": "keep"},
        {"quantize": "int4", "block_size": 32}, {"quantize": "none", "target": "gpu"},
    ],
    ids=str,
)  # fmt: skip
def test_what_goes(values):
    options = ExportOptions(**values)
    assert {name: getattr(options, name) for name in values} == values


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"quantize": "int2"}, "`quantize` must be auto, none, int8, int4 or keep, not int2"),
        *(({"block_size": size}, f"`block_size` must be 16, 32, 64, 128 or 256, not {size}")
          for size in (0, 8, 48, 512)),
        *(({"accuracy_level": level}, f"`accuracy_level` must be 0 to 4, not {level}") for level in (-1, 5)),
        ({"context_length": 31}, "`context_length` must be at least 32, not 31"),
        ({"target": "tpu"}, "`target` must be cpu, gpu or cpu,gpu, not tpu"),
        ({"target": "gpu", "dtype": "float32"}, "`dtype` must be float16 or bfloat16, not float32"),
        ({"target": "cpu,gpu", "quantize": "keep"}, "`quantize` keep is for `target` cpu: GPUs compute with"),
        ({"dtype": "float16"}, "`dtype` is for `target` gpu; the CPU computes with float32; leave it out"),
        ({"quantize": "none", "block_size": 32}, "`block_size` does not go with `quantize` none, which has no blocks"),
        ({"quantize": "keep", "block_size": 32}, "`block_size` does not go with `quantize` keep, which keeps"),
        ({"quantize": "none", "fast_prompts": True}, "`fast_prompts` does not go with `quantize` none: it rounds"),
        ({"target_size": 9, "fast_prompts": True}, "`fast_prompts` does not go with `target_size`, which does not"),
        ({"target": "gpu", "fast_prompts": True}, "`fast_prompts` is for `target` cpu"),
        ({"fast": True, "calibrate": ("a",)}, "`fast` does not calibrate: leave out `fast` or `calibrate`"),
        ({"fast": True, "max_loss": 0.5}, "`max_loss` needs what `fast` does not measure; leave out one of them"),
        ({"target_size": 0}, "`target_size` must be at least a byte, not 0"),
        ({"target_bits": 0.0}, "`target_bits` must be above 0 and at most 16, not 0.0"),
        ({"target_bits": 16.5}, "`target_bits` must be above 0 and at most 16, not 16.5"),
        ({"max_loss": 1.01}, "`max_loss` must be above 0 and at most 100%, not 101%"),
        ({"quantize": "none", "max_loss": 0.5}, "`max_loss` needs `quantize` auto, not none"),
        ({"max_loss": 0.5, "block_size": 16}, "`block_size` does not go with `max_loss`, which chooses the blocks"),
        ({"target_size": 9, "max_loss": 0.5}, "`target_size` and `max_loss` cannot be used together; leave one out"),
    ],
    ids=str,
)  # fmt: skip
def test_what_does_not_go(values, said):
    with pytest.raises(InputError) as caught:
        ExportOptions(**values)
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(
    ("text", "size"), [(" 2 B ", 2), ("1K", 1000), ("1Ki", 1024), ("0.5KB", 500), ("1.9B", 1), ("3G", 3 * 10**9)]
)
def test_sizes_without_a_whole_unit(text, size):
    assert bytes_of(text) == size


@pytest.mark.parametrize(
    ("unit", "size"),
    [
        ("B", 1), ("KB", 1_000), ("MB", 1_000_000), ("GB", 1_000_000_000),
        ("KiB", 1_024), ("MiB", 1_048_576), ("GiB", 1_073_741_824),
    ],
)  # fmt: skip
def test_units_of_sizes(unit, size):
    assert bytes_of(f"3{unit}") == 3 * size


@pytest.mark.parametrize("text", ["", "9", "MB", "-1MB", "1e3MB", ".5MB", "5.MB", "1TB", "1 MB MB", "1i"])
def test_what_is_no_size(text):
    with pytest.raises(InputError) as caught:
        bytes_of(text)
    assert str(caught.value) == f"`target_size` must be a size such as 90MB or 1.5GB, not {text}".strip()
