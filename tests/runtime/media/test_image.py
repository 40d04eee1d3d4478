"""Image files, good and bad, against Pillow and transformers' own way of loading them."""

from __future__ import annotations

import builtins
import importlib.util
import io
import struct
import zlib
from dataclasses import replace
from re import escape

import numpy as np
import pytest
from PIL import Image
from transformers.image_utils import load_image

from triform.export.describe.image import synthetic_images
from triform.runtime.bundle.media_info import ImageInfo
from triform.runtime.errors import InputError, UnsupportedError
from triform.runtime.extras import install_command
from triform.runtime.media.image import pixel_values, read_image

COLOR = next(synthetic_images(1, seed=5))
INFO = ImageInfo(3, 8, 8, [8], "bilinear", [8, 8], None, None, None)


def saved(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def with_alpha(mode):
    alpha = Image.fromarray(np.arange(COLOR.width * COLOR.height, dtype=np.uint8).reshape(COLOR.height, COLOR.width))
    image = COLOR.convert("RGBA" if mode == "RGBA" else "LA")
    image.putalpha(alpha)
    return image


@pytest.mark.parametrize(
    "content",
    [
        saved(COLOR),
        saved(COLOR, "JPEG"),
        saved(COLOR.convert("CMYK"), "JPEG"),
        saved(COLOR, "BMP"),
        saved(COLOR, "PPM"),
        saved(COLOR, "TIFF"),
        saved(COLOR, "WEBP"),
        saved(COLOR, "MPO", save_all=True, append_images=[Image.new("RGB", COLOR.size)]),
        saved(COLOR.convert("P"), "GIF"),
        saved(COLOR.convert("L")),
        saved(COLOR.convert("1")),
        saved(COLOR.convert("P")),
        saved(COLOR.convert("P"), transparency=3),
        saved(with_alpha("RGBA")),
        saved(with_alpha("LA")),
        saved(COLOR.convert("P"), "GIF", save_all=True, append_images=[Image.new("P", COLOR.size)]),
    ],
)
def test_an_image_looks_as_it_does_to_transformers(tmp_path, content):
    (tmp_path / "image").write_bytes(content)
    with Image.open(tmp_path / "image") as opened:
        expected = np.asarray(load_image(opened))
    for source in (content, tmp_path / "image", str(tmp_path / "image")):
        found = read_image(source)
        assert found.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(found), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_upright_as_by_transformers(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    COLOR.save(tmp_path / "image.png", exif=exif)
    found = read_image(tmp_path / "image.png")
    assert (found.width > found.height) == (orientation > 4)
    np.testing.assert_array_equal(np.asarray(found), np.asarray(load_image(str(tmp_path / "image.png"))))


def png_of_16_bits(levels):
    """A color PNG of 16 bits, which Pillow reads and does not write."""
    height, width, _ = levels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    found = b"\x89PNG\r\n\x1a\n"
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        found += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return found


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "color"])
def test_pixels_of_16_bits_keep_their_upper_8(kind):
    gray = np.asarray(COLOR.convert("L"))
    # 257 times a level of 8 bits is the same level of 16.
    deep = gray.astype(np.uint16) * 257
    content = png_of_16_bits(np.stack([deep] * 3, axis=-1)) if kind == "color" else saved(Image.fromarray(deep), kind)
    np.testing.assert_array_equal(np.asarray(read_image(content)), np.stack([gray] * 3, axis=-1))


def refusal(source):
    with pytest.raises(InputError) as caught:
        read_image(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_file_that_breaks_off_is_refused(kind, share):
    content = saved(COLOR.convert("P") if kind == "GIF" else COLOR, kind)
    assert refusal(content[: int(len(content) * share)]).startswith("the image ")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP"])
def test_random_damage_is_refused_or_read(kind):
    content = saved(COLOR.convert("P") if kind == "GIF" else COLOR, kind)
    generator = np.random.default_rng(0)
    for _ in range(40):
        damaged = bytearray(content)
        for place in generator.integers(0, min(len(damaged), 200), 4):
            damaged[place] = generator.integers(0, 256)
        try:
            assert read_image(bytes(damaged)).mode == "RGB"
        except InputError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("content", [b"", b"not an image at all", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"])
def test_what_is_no_image_is_refused(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    assert refusal(tmp_path / "file").startswith(
        f"{tmp_path / 'file'} is not an image of a kind that can be read: JPEG"
    )


def test_files_that_cannot_be_opened_are_refused(tmp_path):
    assert refusal(tmp_path / "nowhere.png") == f"{tmp_path / 'nowhere.png'} cannot be read: No such file or directory"
    assert refusal(tmp_path) == f"{tmp_path} cannot be read: Is a directory"


@pytest.mark.parametrize("edge", [1, 3])
def test_an_image_that_would_fill_the_memory_is_refused(monkeypatch, edge):
    # Pillow warns of images above this, and refuses those above twice of it.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", COLOR.width * COLOR.height // edge - 1)
    assert "pixels; make it smaller first" in refusal(saved(COLOR))


def test_pixels_of_unknown_range_are_refused():
    image = Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8))
    assert "32 bits" in refusal(saved(image, "TIFF"))


def test_a_thread_of_an_image_is_not_blown_up():
    with pytest.raises(InputError, match="2x200000000 pixels is too narrow"):
        pixel_values(FakeImage(), INFO)


class FakeImage:
    """As large as no test should make an image."""

    size = (2, 200_000_000)
    width, height = size


def test_without_pillow_one_line_says_what_to_install(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr("triform.runtime.media.image.find_spec", lambda name: None if name == "PIL" else find(name))
    monkeypatch.setattr(builtins, "open", None)
    with pytest.raises(UnsupportedError, match=f"^images need Pillow: {escape(install_command('image'))}$"):
        read_image("image.png")


PIXELS = np.random.default_rng(7).integers(0, 256, (8, 8, 3), np.uint8)
MEAN, STD = [0.5, 0.25, 0.125], [0.5, 2.0, 4.0]


@pytest.mark.parametrize("rescale", [None, 1 / 255, 2.0])
@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_numbers_of_pixels_by_hand(rescale, normalized, order):
    """Of an image that has the model's size: times the factor, less the mean, by the deviation; colors first."""
    info = replace(INFO, crop=None, resize=[8, 8], rescale=rescale, channel_order=order)
    info = replace(info, mean=MEAN, std=STD) if normalized else info
    expected = PIXELS.astype(np.float64) * (1 if rescale is None else rescale)
    expected = (expected - MEAN) / STD if normalized else expected
    expected = expected[..., ::-1] if order == "bgr" else expected
    found = pixel_values(Image.fromarray(PIXELS), info)
    assert found.dtype == np.float32 and found.flags["C_CONTIGUOUS"]
    np.testing.assert_allclose(found, expected.transpose(2, 0, 1), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("crop", "top", "left"), [([8, 8], 0, 0), ([7, 6], 0, 1), ([5, 5], 1, 1), ([1, 8], 3, 0)])
def test_the_middle_of_an_image_rounded_down(crop, top, left):
    info = replace(INFO, height=crop[0], width=crop[1], crop=crop, resize=[8, 8])
    found = pixel_values(Image.fromarray(PIXELS), info)
    np.testing.assert_array_equal(found, PIXELS[top : top + crop[0], left : left + crop[1]].transpose(2, 0, 1))
