"""Which files of a folder are the graphs of an encoder-decoder, by their names alone."""

from __future__ import annotations

import pytest

from triform.export.onnx_import.encoder_decoders.parts import find_parts
from triform.runtime.errors import ExportError, InputError

ENCODER, FIRST, PAST, MERGED = "encoder_model", "decoder_model", "decoder_with_past_model", "decoder_model_merged"
ALL = (ENCODER, FIRST, PAST)


@pytest.fixture
def folder(tmp_path):
    """A function that makes these files, empty, of any number of kinds."""

    def make(*names, kinds=("",), place=""):
        (tmp_path / place).mkdir(exist_ok=True)
        for name in names:
            for kind in kinds:
                (tmp_path / place / f"{name}{kind}.onnx").write_bytes(b"")
        return tmp_path

    return make


def found(folder, file=None, encoder=None):
    parts = find_parts(folder, file, encoder)
    assert parts.folder == folder
    return [path.relative_to(folder).as_posix() for path in (parts.encoder, parts.first, parts.past)]


def onnx(*names, kind="", place=""):
    return [f"{place}{name}{kind}.onnx" for name in names]


@pytest.mark.parametrize("place", ["", "onnx/"])
def test_three_graphs(folder, place):
    assert found(folder(*ALL, place=place)) == onnx(*ALL, place=place)


def test_both_decoders_in_one_graph(folder):
    where = folder(ENCODER, MERGED)
    assert found(where) == onnx(ENCODER, MERGED, MERGED)
    assert len(find_parts(where, None).paths) == 2
    # It goes before graphs apart, but where one of these is named.
    where = folder(*ALL, MERGED)
    assert (
        found(where)
        == found(where, f"{MERGED}.onnx")
        == found(where, f"{ENCODER}.onnx")
        == onnx(ENCODER, MERGED, MERGED)
    )
    assert found(where, f"{FIRST}.onnx") == found(where, f"{PAST}.onnx") == onnx(*ALL)
    assert len(find_parts(where, f"{PAST}.onnx").paths) == 3


def test_the_folder_itself_goes_before_the_one_in_it(folder):
    folder(*ALL, place="onnx")
    assert found(folder(*ALL)) == onnx(*ALL)


def test_kinds(folder):
    """What is not quantized, or the only one, or the one that is named."""
    where = folder(*ALL, kinds=("", "_q4", "_int8"))
    assert found(where) == onnx(*ALL)
    assert found(where, "decoder_model_q4.onnx") == onnx(*ALL, kind="_q4")
    assert found(where, "encoder_model_int8.onnx") == onnx(*ALL, kind="_int8")


def test_the_only_kind(folder):
    assert found(folder(*ALL, kinds=("_q4",))) == onnx(*ALL, kind="_q4")


def test_several_kinds_of_which_none_is_plain(folder):
    where = folder(*ALL, kinds=("_q4", "_int8"), place="onnx")
    with pytest.raises(InputError) as caught:
        find_parts(where, None)
    names = "onnx/encoder_model_int8.onnx, onnx/encoder_model_q4.onnx"
    assert str(caught.value) == f"{where} has several encoders: choose one, with its decoder, by `file`: {names}"
    assert found(where, "onnx/decoder_model_q4.onnx") == onnx(*ALL, kind="_q4", place="onnx/")


def test_an_encoder_of_another_kind(folder):
    where = folder(*ALL, kinds=("", "_q4"))
    assert found(where, "decoder_model_q4.onnx", "encoder_model.onnx") == onnx(ENCODER) + onnx(FIRST, PAST, kind="_q4")
    # Without one of the decoder's kind.
    (where / "encoder_model_q4.onnx").unlink()
    assert found(where, "decoder_model_q4.onnx", "encoder_model.onnx") == onnx(ENCODER) + onnx(FIRST, PAST, kind="_q4")


@pytest.mark.parametrize("encoder", ["decoder_model.onnx", "encoder_model_q4.onnx", "encoder_model", "config.json"])
def test_what_is_no_encoder(folder, encoder):
    where = folder(*ALL)
    with pytest.raises(InputError) as caught:
        find_parts(where, None, encoder)
    assert str(caught.value) == f"`encoder_file`: {where} has no encoder {encoder}, such as onnx/encoder_model.onnx"


@pytest.mark.parametrize("file", ["model.onnx", "decoder_model_fp16.onnx"])
def test_an_encoder_with_what_is_no_decoder(folder, file):
    where = folder(ENCODER)
    (where / "model.onnx").write_bytes(b"")
    with pytest.raises(InputError) as caught:
        find_parts(where, file, "encoder_model.onnx")
    assert str(caught.value) == f"`encoder_file`: {file} is no decoder of an encoder-decoder"


@pytest.mark.parametrize("names", [(), ("model",), (FIRST, PAST), (MERGED,), ("my_encoder_model",), ("text_model",)])
def test_other_folders(folder, names):
    assert find_parts(folder(*names), None) is None
    assert find_parts(folder(*names), "model.onnx") is None
    # Not even there.
    assert find_parts(folder(*names), "decoder_model_q8.onnx") is None


@pytest.mark.parametrize(
    ("names", "file", "lacks"),
    [
        ((ENCODER, FIRST), None, f"{PAST}.onnx, or {MERGED}.onnx in place of both decoders"),
        ((ENCODER,), None, f"{FIRST}.onnx, or {MERGED}.onnx in place of both decoders"),
        ((ENCODER, FIRST, MERGED), f"{FIRST}.onnx", f"{PAST}.onnx"),
        ((ENCODER, PAST, MERGED), f"{PAST}.onnx", f"{FIRST}.onnx"),
    ],
)  # fmt: skip
def test_graphs_that_are_missing(folder, names, file, lacks):
    where = folder(*names)
    with pytest.raises(ExportError) as caught:
        find_parts(where, file)
    assert str(caught.value) == (
        f"{where} lacks {lacks}: an encoder-decoder needs encoder_model.onnx, and graphs that begin an answer and "
        "continue it"
    )


def test_graphs_of_other_kinds_are_named(folder):
    folder(*ALL, kinds=("_q4",))
    where = folder(ENCODER, FIRST)
    with pytest.raises(ExportError) as caught:
        find_parts(where, f"{FIRST}.onnx")
    listed = "decoder_model_q4.onnx, decoder_with_past_model_q4.onnx, encoder_model_q4.onnx"
    assert str(caught.value).endswith(
        f"continue it; of other kinds it has {listed}: `file` names a decoder, `encoder_file` its encoder"
    )
