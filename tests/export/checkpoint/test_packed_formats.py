"""Which of the packed formats are known, by each setting that names one; scales of groups and blocks one by one."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from triform.export.checkpoint.files.packed.awq import AWQ
from triform.export.checkpoint.files.packed.bitsandbytes import BITSANDBYTES
from triform.export.checkpoint.files.packed.compressed_tensors import scaled_packings
from triform.export.checkpoint.files.packed.formats import method_of, packings_of
from triform.export.checkpoint.files.packed.fp8 import fp8_packings
from triform.export.checkpoint.files.packed.packing import Packing, column_groups, integers, packed_matrices
from triform.export.checkpoint.files.packed.scales import BlockLengths
from triform.runtime.errors import ExportError

GPTQ = {"quant_method": "gptq"}


def compressed(*weights, **others):
    groups = {f"group_{number}": item for number, item in enumerate(weights)}
    return {"quant_method": "compressed-tensors", "config_groups": groups, **others}


def bits(number, **others):
    return {"weights": {"num_bits": number, **others}}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"quant_method": "awq"}, AWQ),
        ({"quant_method": "awq", "version": "GEMM"}, AWQ),
        ({"quant_method": "awq", "version": "gemv"}, ()),
        ({"quant_method": "bitsandbytes"}, BITSANDBYTES),
        ({"quant_method": SimpleNamespace(value="bitsandbytes")}, BITSANDBYTES),
        ({"load_in_8bit": True, "llm_int8_threshold": 6.0}, BITSANDBYTES),
        ({"load_in_4bit": True}, BITSANDBYTES),
        ({"load_in_8bit": False}, ()),
        ({"quant_method": "auto-round", "packing_format": "auto_round:auto_awq"}, AWQ),
        ({}, ()),
        (GPTQ | {"is_marlin_format": True}, ()),
        (GPTQ | {"checkpoint_format": "marlin"}, ()),
    ],
)
def test_methods(settings, expected):
    assert packings_of(settings) == expected


def test_the_name_of_a_method():
    assert method_of({"quant_method": "gptq"}) == "gptq"
    assert method_of({"quant_method": SimpleNamespace(value="awq")}) == "awq"


@pytest.mark.parametrize(
    ("settings", "known"),
    [
        *((compressed(bits(number), format="pack-quantized"), number) for number in (2, 4, 8)),
        (compressed(bits(3), format="pack-quantized"), None),
        (compressed(bits(4), bits(4, type="int"), format="pack-quantized"), 4),
        (compressed(bits(4), bits(8), format="pack-quantized"), None),
        # Floats are not packed in integers.
        (compressed(bits(4), bits(8, type="float"), format="pack-quantized"), 4),
        (compressed(bits(8, type="float"), format="pack-quantized"), None),
        (compressed({"weights": None}, format="pack-quantized"), None),
        (compressed(format="pack-quantized"), None),
        (compressed(bits(4) | {"format": "pack-quantized"}, format="mixed-precision"), 4),
        (compressed(bits(4) | {"format": "pack-quantized"}), 4),
        (compressed(bits(4), format="pack-quantized", sparsity_config={"format": "dense"}), 4),
        (compressed(bits(4), format="pack-quantized", sparsity_config={}), 4),
        (compressed(bits(4), format="pack-quantized", sparsity_config={"format": "sparse-24-bitmask"}), None),
        (compressed(bits(4), format="pack-quantized", sparsity_config="2:4"), None),
        (compressed(bits(4), format="marlin-24"), None),
        (compressed(bits(4), "group", format="pack-quantized"), None),
    ],
)
def test_packed_integers(settings, known):
    found = packings_of(settings)
    if known is None:
        assert found == ()
        return
    assert found[1:] == scaled_packings() and found[0].as_grid
    # 1, 2, 3 … with half of their range added, in one integer from its lowest bits on.
    numbers = range(1, 1 + min(4, 32 // known))
    half = 2 ** (known - 1)
    packed = sum(((number + half) % 2**known) << known * place for place, number in enumerate(numbers))
    parts = {
        "weight_packed": torch.tensor([[packed]], dtype=torch.int64).to(torch.int32),
        "weight_shape": torch.tensor([1, len(numbers)]),
        "weight_scale": torch.ones(1, 1),
    }
    wrapped = [(number + half) % 2**known - half for number in numbers]
    assert found[0].unpack(parts).matrix().tolist() == [wrapped]


@pytest.mark.parametrize(
    ("places", "known"),
    [
        (["weight_input", "weight_output"], True), (["weight_input", "input"], False), (["k_cache"], False),
        (["q_attn"], False), (["output"], False), ([], False),
    ],
)  # fmt: skip
def test_rotations_are_known_where_the_weights_have_them(places, known):
    """compressed-tensors' `TransformLocation.is_online`: all but those two are computed while a model runs."""
    apply = [{"targets": ["Linear"], "location": place} for place in places]
    settings = compressed(bits(8), format="float-quantized")
    assert packings_of(settings | {"transform_config": {"config_groups": {}}}) == scaled_packings()
    transforms = {"config_groups": {"R": {"type": "hadamard", "apply": apply}}}
    assert packings_of(settings | {"transform_config": transforms}) == (scaled_packings() if known else ())


@pytest.mark.parametrize("written", ["int-quantized", "float-quantized", "naive-quantized", "dense"])
def test_numbers_with_scales(written):
    assert packings_of(compressed(bits(8), format=written)) == scaled_packings()
    assert packings_of({"quant_method": "compressed-tensors", "format": written}) == scaled_packings()


def scaled(weight, scale, zero=None, length=2):
    parts = {"weight": torch.tensor(weight, dtype=torch.int8), "weight_scale": torch.tensor(scale)}
    if zero is not None:
        parts["weight_zero_point"] = torch.tensor(zero, dtype=torch.int8)
    return scaled_packings(BlockLengths(frozenset({length}), frozenset({length})))[0].unpack(parts).tolist()


WEIGHT = [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(
    ("scale", "zero", "expected"),
    [
        ([2.0], None, [[2, 4, 6], [8, 10, 12]]),
        # One of each row, as a vector and as a column.
        ([2.0, 10.0], None, [[2, 4, 6], [40, 50, 60]]),
        ([[2.0], [10.0]], [[1], [4]], [[0, 2, 4], [0, 10, 20]]),
        ([2.0, 10.0], [1, 4], [[0, 2, 4], [0, 10, 20]]),
        # Groups of two columns, the last of which is cut.
        ([[1.0, 2.0], [3.0, 4.0]], None, [[1, 2, 6], [12, 15, 24]]),
        ([[1.0, 2.0], [3.0, 4.0]], [[0, 1], [2, 3]], [[1, 2, 4], [6, 9, 12]]),
        # One row of scales for all rows.
        ([[1.0, 2.0]], None, [[1, 2, 6], [4, 5, 12]]),
    ],
)
def test_scales(scale, zero, expected):
    assert scaled(WEIGHT, scale, zero) == expected


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_a_matrix_of_its_full_size_is_not_scaled(dtype):
    """compressed-tensors' DenseCompressor changes nothing: the scale is what the matrix is rounded with in each run."""
    parts = {"weight": torch.ones(3, 4, dtype=dtype), "weight_scale": torch.full((3, 1), 0.01)}
    with pytest.raises(ExportError, match=f"a matrix is stored in {str(dtype)[6:]} beside scales"):
        scaled_packings()[0].unpack(parts)


def test_scales_that_are_exponents_are_no_factors():
    """As MXFP8 has them: 127 stands for 1."""
    parts = {"weight": torch.ones(3, 32).to(torch.float8_e4m3fn), "weight_scale": torch.full((3, 1), 127).byte()}
    with pytest.raises(TypeError, match="scales of"):
        scaled_packings()[0].unpack(parts)


def test_blocks_of_rows_and_columns():
    weight = [[1, 1, 1], [1, 1, 1], [1, 1, 1]]
    assert scaled(weight, [[1.0, 2.0], [3.0, 4.0]]) == [[1, 1, 2], [1, 1, 2], [3, 3, 4]]
    assert scaled(weight, [[1.0, 2.0], [3.0, 4.0]], [[0, 1], [2, 3]]) == [[1, 1, 0], [1, 1, 0], [-3, -3, -8]]


@pytest.mark.parametrize(
    ("length", "expected"),
    # As 960 columns in blocks of 128 are eight blocks, and the last one is cut: not eight of 120.
    [(4, [[1, 1, 1, 1, 2, 2]]), (3, [[1, 1, 1, 2, 2, 2]]), (7, [[1, 1, 1, 2, 2, 2]])],
    ids=["the last block is cut", "two whole blocks", "a length that gives another number of blocks"],
)
def test_blocks_are_as_long_as_the_config_says(length, expected):
    assert scaled([[1] * 6], [[1.0, 2.0]], length=length) == expected
    fp8 = packings_of({"quant_method": "fp8", "weight_block_size": [1, length]})[0]
    parts = {"weight": torch.ones(1, 6).to(torch.float8_e4m3fn), "weight_scale_inv": torch.tensor([[1.0, 2.0]])}
    assert fp8.unpack(parts).tolist() == expected


def test_blocks_of_no_known_length_are_refused():
    with pytest.raises(ValueError, match="blocks of an unknown length"):
        scaled([[1] * 7], [[1.0, 2.0]], length=9)


@pytest.mark.parametrize(
    ("weights", "rows", "columns"),
    [
        ({"strategy": "block", "block_structure": [128, 64]}, {128}, {64}),
        ({"strategy": "block", "block_structure": "128x64"}, {128}, {64}),
        ({"strategy": "group", "group_size": 32}, set(), {32}),
        ({"strategy": "channel", "group_size": -1, "block_structure": None}, set(), set()),
    ],
)
def test_lengths_in_a_config(weights, rows, columns):
    found = packings_of(compressed({"weights": {"num_bits": 8, **weights}}, format="float-quantized"))
    assert found == scaled_packings(BlockLengths(frozenset(rows), frozenset(columns)))


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        (torch.tensor(0.5), 0.5), (torch.tensor([0.5]), 0.5), (torch.tensor([[126]], dtype=torch.uint8), 0.5),
        (torch.tensor([[2.0]]).to(torch.float8_e8m0fnu), 2.0),
    ],
)  # fmt: skip
def test_scales_of_a_matrix_of_8_bit_floats(scale, expected):
    """As numbers, and as the exponents of powers of two."""
    packing, *_ = packings_of({"quant_method": "fp8", "weight_block_size": None})
    parts = {"weight": torch.ones(2, 3).to(torch.float8_e4m3fn), "weight_scale_inv": scale}
    assert packing.unpack(parts).tolist() == [[expected] * 3] * 2


@pytest.mark.parametrize(
    ("settings", "expected"),
    # transformers' FineGrainedFP8Config has blocks of 128 where the key is missing, and null is for one scale.
    [({}, [1.0] * 128 + [2.0] * 64), ({"weight_block_size": None}, [1.0] * 96 + [2.0] * 96)],
)
def test_blocks_of_a_config_that_does_not_say(settings, expected):
    packing, *_ = packings_of({"quant_method": "fp8", **settings})
    parts = {"weight": torch.ones(1, 192).to(torch.float8_e4m3fn), "weight_scale_inv": torch.tensor([[1.0, 2.0]])}
    assert packing.unpack(parts).tolist() == [expected]


def test_4_bit_floats_are_no_8_bit_floats():
    packing, *_ = packings_of({"quant_method": "fp8"})
    with pytest.raises(TypeError):
        packing.unpack({"weight": torch.ones(2, 3, dtype=torch.int8), "weight_scale_inv": torch.ones(1, 1)})


def test_names_of_packed_matrices():
    """Each tensor belongs to the first packing that fits; others' names only begin or end like those of one."""
    one, two = Packing("qweight", ("scales",), None, ("g_idx",)), Packing("weight_packed", ("scales",), None)
    assert not one.as_grid
    names = ["a.qweight", "a.scales", "a.g_idx", "b.weight_packed", "b.scales", ".qweight", "c.qweight_type",
             "a.weight_packed", "d.scales"]  # fmt: skip
    assert [(found.name, found.tensors, found.packing) for found in packed_matrices(names, [one, two])] == [
        ("a.weight", {"qweight": "a.qweight", "scales": "a.scales", "g_idx": "a.g_idx"}, one),
        ("a.weight", {"weight_packed": "a.weight_packed"}, two),
        ("b.weight", {"weight_packed": "b.weight_packed", "scales": "b.scales"}, two),
    ]


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("shape", [(3,), (2, 6), (2, 2, 3)])
def test_integers_of_few_bits_come_lowest_first(bits, shape):
    """Python's integers, shifted by one number after another."""
    packed = torch.randint(-(2**31), 2**31, shape, generator=torch.Generator().manual_seed(0), dtype=torch.int32)
    whole = [
        sum((item & 0xFFFFFFFF) << 32 * at for at, item in enumerate(row))
        for row in packed.reshape(-1, shape[-1]).tolist()
    ]
    expected = [[number >> at & 2**bits - 1 for at in range(0, 32 * shape[-1], bits)] for number in whole]
    found = integers(packed, bits)
    assert found.dtype == torch.int32 and found.shape[:-1] == packed.shape[:-1]
    assert found.reshape(len(expected), -1).tolist() == expected


@pytest.mark.parametrize(
    ("given", "groups", "expected"),
    [
        (None, 2, None),
        # In order they need not be said.
        ([0, 0, 0, 1, 1, 1], 2, None), ([0, 1, 2, 3, 4, 5], 6, None), ([0, 0, 0, 0, 0, 0], 1, None),
        ([0, 1, 0, 1, 0, 1], 2, [0, 1, 0, 1, 0, 1]), ([1, 1, 1, 0, 0, 0], 2, [1, 1, 1, 0, 0, 0]),
        # The last group is shorter.
        ([0, 0, 0, 0, 1, 1], 4, [0, 0, 0, 0, 1, 1]), ([0, 1, 2, 3, 4, 5], 4, [0, 1, 2, 3, 4, 5]),
    ],
)  # fmt: skip
def test_groups_of_columns(given, groups, expected):
    found = column_groups(None if given is None else torch.tensor(given, dtype=torch.int32), 6, groups)
    assert found is None if expected is None else found.tolist() == expected and found.dtype == torch.int64


@pytest.mark.parametrize("given", [[0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 1, 1, -1]])
def test_groups_of_other_columns_are_refused(given):
    with pytest.raises(ValueError, match=r"^groups of other columns$"):
        column_groups(torch.tensor(given), 6, 2)


@pytest.mark.parametrize(
    ("settings", "rows", "columns"),
    [
        ({}, 128, 128), ({"weight_block_size": [2, 3]}, 2, 3), ({"weight_block_size": (2, None)}, 2, 300),
        ({"weight_block_size": None}, 300, 300), ({"weight_block_size": [1, 1]}, 1, 1),
    ],
)  # fmt: skip
def test_blocks_of_8_bit_floats(settings, rows, columns):
    """Each block has a scale of its own; of powers of two the exponent, plus 127, is stored."""
    for packing in fp8_packings(settings):
        weight = torch.full((300, 300), 2.0).to(torch.float8_e4m3fn)
        shape = -(-300 // rows), -(-300 // columns)
        exponents = (torch.arange(shape[0] * shape[1]) % 7 + 124).to(torch.uint8).view(shape)
        scales = torch.tensor([0.125, 0.25, 0.5, 1, 2, 4, 8])[exponents.long() - 124]
        expected = 2 * scales.repeat_interleave(rows, 0)[:300].repeat_interleave(columns, 1)[:, :300]
        for stored in (exponents, scales, scales.bfloat16()):
            assert torch.equal(packing.unpack({"weight": weight, packing.mark: stored}), expected)
        with pytest.raises(TypeError, match=r"^no 8-bit floats$"):
            packing.unpack({"weight": weight.to(torch.uint8), packing.mark: scales})


@pytest.mark.parametrize("sizes", [[2], [2, 3, 4], [0, 1], [1, -1], [True, 1], [1.0, 2], "ab", 5, {1: 2, 3: 4}])
def test_sizes_of_blocks_that_are_none(sizes):
    assert fp8_packings({"weight_block_size": sizes}) == ()


@pytest.mark.parametrize(("bits", "kind"), [(4, torch.int16), (2, torch.int16), (4, torch.int64), (8, torch.int64)])
def test_numbers_in_integers_of_another_size_are_refused(bits, kind):
    """By their shapes 4 bits in 16 would be 8 in 32."""
    each = torch.iinfo(kind).bits // bits
    parts = {
        "qweight": torch.ones(64 // each, 48, dtype=kind), "qzeros": torch.ones(2, 48 // each, dtype=kind),
        "scales": torch.ones(2, 48),
    }  # fmt: skip
    with pytest.raises(TypeError, match=f"integers of torch.{kind}".replace("torch.torch", "torch")):
        packings_of({"quant_method": "gptq"})[0].unpack(parts)
