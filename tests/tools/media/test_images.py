import errno
import io
import os
import random
import struct
import subprocess
import sys
import time
import types
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile, TiffImagePlugin

from engine.multiscale import fit
from tools.media import images
from tools.media.images import MAX_PIXELS, extent, load_image, load_painting, pictures_in, read_text
from tools.media.picture import Picture
from tools.media.saving import save_image

SUFFIXES = [".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff"]
LOSSLESS = [".png", ".webp", ".tif"]


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def refused(call: Callable[..., Any], path: Path, *arguments: Any, **options: Any) -> str:
    """Return the message of the ValueError that a call raises about ``path``, once it is seen to be one line."""
    with pytest.raises(ValueError) as caught:
        call(path, *arguments, **options)
    message = str(caught.value)
    assert repr(str(path)) in message
    assert "\n" not in message
    return message


def mode_of(path: Path) -> str:
    with Image.open(path) as image:
        return image.mode


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, depth: int, color: int, rows: bytes, *before: bytes) -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    data = png_chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(before) + data + png_chunk(b"IEND", b"")


def tiff(width: int, height: int, photometric: int, bits: list[int], data: bytes, **extra: list[int]) -> bytes:
    """Return an uncompressed little-endian TIFF file of one strip."""
    numbers = {"color_map": 320, "extra_samples": 338, "sample_format": 339}
    entries = {
        256: [width],
        257: [height],
        258: bits,
        259: [1],
        262: [photometric],
        273: [8],
        277: [len(bits)],
        278: [height],
        279: [len(data)],
        **{numbers[name]: values for name, values in extra.items()},
    }
    data += b"\0" * (len(data) % 2)
    directory = 8 + len(data)
    outside = directory + 2 + 12 * len(entries) + 4
    table, tail = struct.pack("<H", len(entries)), b""
    for tag, values in sorted(entries.items()):
        packed = struct.pack(f"<{len(values)}H", *values)
        if len(packed) > 4:
            packed, tail = struct.pack("<I", outside + len(tail)), tail + packed
        table += struct.pack("<HHI", tag, 3, len(values)) + packed.ljust(4, b"\0")
    return b"II*\0" + struct.pack("<I", directory) + data + table + struct.pack("<I", 0) + tail


def icc_profile(kind: bytes, space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    """Return an ICC profile of version 2 with the given tags and a D50 white point."""
    d50 = struct.pack(">3i", *(round(value * 65536) for value in (0.9642, 1.0, 0.8249)))
    tags = {b"wtpt": b"XYZ \0\0\0\0" + d50, **tags}
    table, content = struct.pack(">I", len(tags)), b""
    for name, tag in tags.items():
        table += name + struct.pack(">2I", 128 + 4 + 12 * len(tags) + len(content), len(tag))
        content += tag + b"\0" * (-len(tag) % 4)
    size = struct.pack(">I", 128 + len(table) + len(content))
    header = size + b"\0\0\0\0\x02\x40\0\0" + kind + space + connection + b"\0" * 12 + b"acsp" + b"\0" * 28 + d50
    return header.ljust(128, b"\0") + table + content


LINEAR = b"curv" + b"\0" * 8
RED, GREEN, BLUE = (0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141)


def rgb_profile(red: tuple[float, ...], green: tuple[float, ...], blue: tuple[float, ...], curve: bytes) -> bytes:
    tags = {b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
    for name, color in ((b"rXYZ", red), (b"gXYZ", green), (b"bXYZ", blue)):
        tags[name] = b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in color))
    return icc_profile(b"mntr", b"RGB ", b"XYZ ", tags)


def gray_profile() -> bytes:
    return icc_profile(b"mntr", b"GRAY", b"XYZ ", {b"kTRC": LINEAR})


def cmyk_profile() -> bytes:
    """Return the profile of a press whose cyan ink is a middle gray and whose magenta and yellow inks are clear."""
    ramp = bytes(range(256))
    black, gray, white = (bytes([lightness, 128, 128]) for lightness in (0, 127, 255))
    table = b"".join(black if node & 1 else gray if node & 8 else white for node in range(16))
    matrix = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + matrix + ramp * 4 + table + ramp * 3
    return icc_profile(b"prtr", b"CMYK", b"Lab ", {b"A2B0": lut})


def encoded(linear: np.ndarray) -> np.ndarray:
    """Return the sRGB encoding, 0 to 255, of linear light from 0 to 1."""
    return 255 * np.where(
        linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055
    )


# --- what files hold ---


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif", ".bmp", ".ppm"])
def test_color_pictures_are_read_exactly_as_float32_without_alpha(tmp_path, suffix):
    values = noise(5, 7, 3)
    Image.fromarray(values).save(tmp_path / f"a{suffix}", **({"lossless": True} if suffix == ".webp" else {}))
    picture = load_image(tmp_path / f"a{suffix}")
    assert picture.pixels.dtype == np.float32
    assert picture.alpha is None
    np.testing.assert_array_equal(picture.pixels, values)


def test_a_path_may_be_a_string_and_the_suffix_does_not_matter_when_reading(tmp_path):
    Image.fromarray(noise(2, 3, 3)).save(tmp_path / "picture.dat", "PNG")
    np.testing.assert_array_equal(load_image(str(tmp_path / "picture.dat")).pixels, noise(2, 3, 3))


def test_pixels_can_be_written_to(tmp_path):
    Image.fromarray(noise(2, 3, 3)).save(tmp_path / "a.png")
    pixels = load_image(tmp_path / "a.png").pixels
    pixels[0, 0, 0] = 7.5
    assert pixels[0, 0, 0] == 7.5


def test_gray_pictures_get_three_equal_channels(tmp_path):
    values = noise(4, 5)
    Image.fromarray(values).save(tmp_path / "a.png")
    np.testing.assert_array_equal(load_image(tmp_path / "a.png").pixels, np.stack([values] * 3, axis=-1))


def test_one_bit_pictures_are_black_and_white(tmp_path):
    Image.fromarray(np.array([[True, False, True]])).save(tmp_path / "a.png")
    assert mode_of(tmp_path / "a.png") == "1"
    np.testing.assert_array_equal(load_image(tmp_path / "a.png").pixels[0, :, 1], [255, 0, 255])


@pytest.mark.parametrize("suffix", [".png", ".gif", ".tif", ".bmp"])
def test_palette_pictures_get_their_colors(tmp_path, suffix):
    image = Image.new("P", (2, 2))
    image.putdata([0, 1, 2, 1])
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.save(tmp_path / f"a{suffix}")
    expected = [[[10, 20, 30], [40, 50, 60]], [[70, 80, 90], [40, 50, 60]]]
    picture = load_image(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(picture.pixels, expected)
    assert picture.alpha is None


@pytest.mark.parametrize(
    ("transparency", "expected"), [(1, [1, 0, 1, 0]), (b"\xff\x80\x00", [1, 128 / 255, 0, 128 / 255])]
)
def test_palette_pictures_keep_their_transparency(tmp_path, transparency, expected):
    image = Image.new("P", (4, 1))
    image.putdata([0, 1, 2, 1])
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.save(tmp_path / "a.png", transparency=transparency)
    picture = load_image(tmp_path / "a.png")
    assert picture.alpha is not None
    np.testing.assert_allclose(picture.alpha[0], expected, rtol=1e-6)
    np.testing.assert_array_equal(picture.pixels[0, 3], [40, 50, 60])


def test_a_palette_with_an_alpha_channel_beside_it_keeps_both(tmp_path):
    colors = [0] * 768
    colors[3], colors[256 + 3], colors[512 + 3] = 40 * 257, 50 * 257, 60 * 257
    data = bytes([3, 255, 3, 51])
    (tmp_path / "a.tif").write_bytes(tiff(2, 1, 3, [8, 8], data, extra_samples=[2], color_map=colors))
    assert mode_of(tmp_path / "a.tif") == "PA"
    picture = load_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(picture.pixels, [[[40, 50, 60], [40, 50, 60]]])
    np.testing.assert_allclose(picture.alpha, [[1, 0.2]], rtol=1e-6)


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_partly_transparent_pixels_are_not_multiplied_by_alpha(tmp_path, suffix):
    values = np.array([[[200, 100, 50, 255], [200, 100, 50, 51], [200, 100, 50, 1]]], np.uint8)
    Image.fromarray(values).save(tmp_path / f"a{suffix}", **({"lossless": True} if suffix == ".webp" else {}))
    picture = load_image(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(picture.pixels, values[..., :3])
    assert picture.alpha is not None
    assert picture.alpha.dtype == np.float32
    np.testing.assert_allclose(picture.alpha, values[..., 3] / 255, rtol=1e-6)


def test_gray_pictures_keep_their_alpha(tmp_path):
    values = noise(3, 4, 2)
    Image.fromarray(values).save(tmp_path / "a.png")
    assert mode_of(tmp_path / "a.png") == "LA"
    picture = load_image(tmp_path / "a.png")
    np.testing.assert_array_equal(picture.pixels[..., 2], values[..., 0])
    np.testing.assert_allclose(picture.alpha, values[..., 1] / 255, rtol=1e-6)


@pytest.mark.parametrize(
    ("photometric", "data"), [(2, bytes([100, 50, 0, 128])), (1, bytes([50, 128]))], ids=["color", "gray"]
)
def test_pictures_stored_multiplied_by_alpha_are_divided_by_it(tmp_path, photometric, data):
    if photometric == 1 and (b"II", 1, (1,), 1, (8, 8), (1,)) not in TiffImagePlugin.OPEN_INFO:
        pytest.skip("this Pillow does not read such gray pictures")
    (tmp_path / "a.tif").write_bytes(tiff(1, 1, photometric, [8] * len(data), data, extra_samples=[1]))
    picture = load_image(tmp_path / "a.tif")
    np.testing.assert_allclose(picture.pixels[0, 0, -2], 50 * 255 / 128, atol=1)
    np.testing.assert_allclose(picture.alpha, 128 / 255, rtol=1e-6)


def test_a_fully_opaque_alpha_channel_is_left_out(tmp_path):
    values = noise(3, 4, 4)
    values[..., 3] = 255
    Image.fromarray(values).save(tmp_path / "a.png")
    picture = load_image(tmp_path / "a.png")
    assert picture.alpha is None
    np.testing.assert_array_equal(picture.pixels, values[..., :3])


def test_a_fully_transparent_picture_keeps_its_colors_and_its_alpha(tmp_path):
    values = noise(3, 4, 4)
    values[..., 3] = 0
    Image.fromarray(values).save(tmp_path / "a.png")
    picture = load_image(tmp_path / "a.png")
    np.testing.assert_array_equal(picture.alpha, np.zeros((3, 4)))
    np.testing.assert_array_equal(picture.pixels, values[..., :3])


@pytest.mark.parametrize(
    ("depth", "color", "row", "key"),
    [
        (1, 0, b"\x80", b"\0\x01"),
        (8, 0, b"\x07\x09", b"\0\x07"),
        (16, 0, b"\x12\x34\x12\x35", b"\x12\x34"),
        (8, 2, b"\x01\x02\x03\x01\x02\x04", b"\0\x01\0\x02\0\x03"),
    ],
)
def test_a_color_marked_as_transparent_becomes_alpha(tmp_path, depth, color, row, key):
    (tmp_path / "a.png").write_bytes(png(2, 1, depth, color, b"\0" + row, png_chunk(b"tRNS", key)))
    np.testing.assert_array_equal(load_image(tmp_path / "a.png").alpha, [[0, 1]])


# --- more than 8 bits ---


@pytest.mark.parametrize("suffix", [".png", ".tif", ".ppm"])
def test_sixteen_bit_gray_keeps_its_precision(tmp_path, suffix):
    values = np.random.default_rng(1).integers(0, 65536, (6, 5), dtype=np.uint16)
    values[0, :2] = 0, 65535
    Image.fromarray(values).save(tmp_path / f"a{suffix}")
    pixels = load_image(tmp_path / f"a{suffix}").pixels
    np.testing.assert_allclose(pixels, np.stack([values / 257] * 3, axis=-1), rtol=1e-6)
    assert np.unique(pixels % 1).size > 20


def test_sixteen_bit_big_endian_gray_keeps_its_precision(tmp_path):
    values = np.array([[0, 1, 258, 65535]], ">u2")
    image = Image.frombytes("I;16B", (4, 1), values.tobytes())
    image.save(tmp_path / "a.tif")
    assert (tmp_path / "a.tif").read_bytes()[:2] == b"MM"
    np.testing.assert_allclose(load_image(tmp_path / "a.tif").pixels[..., 0], values / 257, rtol=1e-6)


def test_sixteen_bit_gray_is_turned_upright(tmp_path):
    values = np.arange(6, dtype=np.uint16).reshape(2, 3) * 1000
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(values).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_allclose(load_image(tmp_path / "a.png").pixels[..., 0], np.rot90(values, -1) / 257, rtol=1e-6)


def test_twelve_bit_gray_is_scaled_to_its_own_range(tmp_path):
    (tmp_path / "a.tif").write_bytes(tiff(2, 1, 1, [12], b"\xff\xf8\x00"))
    np.testing.assert_allclose(load_image(tmp_path / "a.tif").pixels[0, :, 0], [255, 255 * 0x800 / 0xFFF], rtol=1e-6)


@pytest.mark.parametrize(("bits", "data"), [(8, b"\x00\x33"), (16, b"\x00\x00\x33\x33")])
def test_gray_whose_zero_is_white_is_inverted(tmp_path, bits, data):
    (tmp_path / "a.tif").write_bytes(tiff(2, 1, 0, [bits], data))
    np.testing.assert_allclose(load_image(tmp_path / "a.tif").pixels[0, :, 0], [255, 204], rtol=1e-6)


def test_sixteen_bit_color_is_reduced_to_eight_bits(tmp_path):
    (tmp_path / "a.png").write_bytes(png(1, 1, 16, 2, b"\0\x12\xff\x80\x00\xff\x01"))
    np.testing.assert_array_equal(load_image(tmp_path / "a.png").pixels[0, 0], [0x12, 0x80, 0xFF])


def test_floating_point_samples_from_0_to_1_fill_the_scale(tmp_path):
    values = np.array([[0, 0.1, 1]], np.float32)
    Image.fromarray(values).save(tmp_path / "a.tif")
    np.testing.assert_allclose(load_image(tmp_path / "a.tif").pixels[..., 1], 255 * values, rtol=1e-6)


@pytest.mark.parametrize(
    "values",
    [
        np.array([[0, 1.5]], np.float32),
        np.array([[-0.5, 1]], np.float32),
        np.array([[0, np.nan]], np.float32),
        np.array([[0, 70000]], np.int32),
        np.array([[-1, 5]], np.int32),
    ],
)
def test_samples_of_an_unknown_scale_are_refused(tmp_path, values):
    Image.fromarray(values).save(tmp_path / "a.tif")
    assert "expected 0 to" in refused(load_image, tmp_path / "a.tif")


# --- color spaces ---


def test_a_profile_changes_colors_into_srgb(tmp_path):
    values = np.array([[[255, 0, 0], [0, 0, 255], [255, 255, 255]]], np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png", icc_profile=rgb_profile(BLUE, GREEN, RED, LINEAR))
    np.testing.assert_allclose(load_image(tmp_path / "a.png").pixels, values[..., ::-1], atol=1)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif", ".jpg"])
def test_a_linear_profile_brightens_the_middle_tones_in_every_format(tmp_path, suffix):
    image = Image.fromarray(np.full((8, 8, 3), 128, np.uint8))
    image.save(tmp_path / f"a{suffix}", icc_profile=rgb_profile(RED, GREEN, BLUE, LINEAR))
    np.testing.assert_allclose(load_image(tmp_path / f"a{suffix}").pixels, encoded(np.array(128 / 255)), atol=1.5)


def test_a_profile_leaves_alpha_alone(tmp_path):
    values = np.array([[[128, 128, 128, 128], [0, 0, 0, 7]]], np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png", icc_profile=rgb_profile(RED, GREEN, BLUE, LINEAR))
    picture = load_image(tmp_path / "a.png")
    np.testing.assert_allclose(picture.alpha, values[..., 3] / 255, rtol=1e-6)
    np.testing.assert_allclose(picture.pixels[0, 0], encoded(np.array(128 / 255)), atol=1)


@pytest.mark.parametrize("profile", [gray_profile(), rgb_profile(RED, GREEN, BLUE, LINEAR)], ids=["gray", "color"])
def test_gray_pictures_use_gray_and_color_profiles(tmp_path, profile):
    values = np.array([[0, 64, 128, 255]], np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png", icc_profile=profile)
    np.testing.assert_allclose(load_image(tmp_path / "a.png").pixels[..., 0], encoded(values / 255), atol=1)


def test_palette_pictures_use_their_profile(tmp_path):
    image = Image.new("P", (1, 1))
    image.putpalette([128, 128, 128])
    image.save(tmp_path / "a.png", icc_profile=rgb_profile(RED, GREEN, BLUE, LINEAR))
    np.testing.assert_allclose(load_image(tmp_path / "a.png").pixels, encoded(np.array(128 / 255)), atol=1)


def test_sixteen_bit_gray_with_a_profile_is_within_half_a_level_and_finer_than_eight_bits(tmp_path):
    values = np.linspace(30000, 40000, 101).astype(np.uint16)[None]
    Image.fromarray(values).save(tmp_path / "a.png", icc_profile=gray_profile())
    pixels = load_image(tmp_path / "a.png").pixels[..., 0]
    np.testing.assert_allclose(pixels, encoded(values / 65535), atol=0.6)
    assert np.unique(pixels).size > 2 * np.ptp(pixels)


def test_cmyk_without_a_profile_is_read_in_jpeg_and_tiff(tmp_path):
    image = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    image.save(tmp_path / "a.jpg", quality=100)
    image.save(tmp_path / "a.tif")
    for name in ("a.jpg", "a.tif"):
        np.testing.assert_allclose(load_image(tmp_path / name).pixels, np.full((8, 8, 3), [0, 255, 255]), atol=2)


def test_cmyk_is_converted_through_its_profile(tmp_path):
    inks = Image.new("CMYK", (24, 8), (255, 0, 0, 0))
    inks.paste((0, 255, 255, 0), (8, 0, 16, 8))
    inks.paste((0, 0, 0, 255), (16, 0, 24, 8))
    inks.save(tmp_path / "a.jpg", quality=100, icc_profile=cmyk_profile())
    pixels = load_image(tmp_path / "a.jpg").pixels
    np.testing.assert_allclose(pixels[:, :8], 118.5, atol=3)
    np.testing.assert_allclose(pixels[:, 8:16], 255, atol=2)
    np.testing.assert_allclose(pixels[:, 16:], 0, atol=2)


def test_lab_pictures_are_converted(tmp_path):
    values = np.array([[[200, 100, 50], [10, 20, 30], [255, 255, 255]]], np.uint8)
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    ImageCms.profileToProfile(Image.fromarray(values), srgb, lab, outputMode="LAB").save(tmp_path / "a.tif")
    assert mode_of(tmp_path / "a.tif") == "LAB"
    np.testing.assert_allclose(load_image(tmp_path / "a.tif").pixels, values, atol=3)


@pytest.mark.parametrize(
    "profile",
    [b"not a profile", rgb_profile(RED, GREEN, BLUE, LINEAR)[:200], gray_profile(), cmyk_profile()],
    ids=["garbage", "truncated", "for gray", "for inks"],
)
def test_a_profile_that_cannot_be_used_is_ignored(tmp_path, profile):
    values = noise(3, 4, 3)
    Image.fromarray(values).save(tmp_path / "a.png", icc_profile=profile)
    np.testing.assert_array_equal(load_image(tmp_path / "a.png").pixels, values)


ADOBE = np.array([[0.57667, 0.18556, 0.18823], [0.29734, 0.62736, 0.07529], [0.02703, 0.07069, 0.99134]])
SRGB = np.array([[0.41239, 0.35758, 0.18048], [0.21264, 0.71517, 0.07219], [0.01933, 0.11919, 0.95053]])


def adobe_rgb(pixels: np.ndarray) -> np.ndarray:
    """Return what Adobe RGB (1998) has for sRGB pixels, by the definitions of both: through the same XYZ of D65."""
    value = pixels / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    return 255 * np.clip(linear @ (np.linalg.inv(ADOBE) @ SRGB).T, 0, 1) ** (256 / 563)


def color_space_exif(space: int | None, index: str | None) -> bytes:
    exif = Image.Exif()
    if space is not None:
        exif.get_ifd(0x8769)[0xA001] = space
    if index is not None:
        exif.get_ifd(0x8769)[0xA005] = {1: index}
    return exif.tobytes()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize(("space", "index"), [(65535, "R03"), (None, "R03"), (2, None)])
def test_adobe_rgb_by_exif_alone_is_converted(tmp_path, suffix, space, index):
    values = np.random.default_rng(3).integers(0, 256, (9, 8, 3)).repeat(16, axis=0).repeat(16, axis=1)
    stored = np.rint(adobe_rgb(values)).astype(np.uint8)
    options: dict[str, Any] = {".jpg": {"quality": 100, "subsampling": 0}, ".webp": {"lossless": True}}.get(suffix, {})
    Image.fromarray(stored).save(tmp_path / f"a{suffix}", exif=color_space_exif(space, index), **options)
    difference = load_image(tmp_path / f"a{suffix}").pixels - values
    # In the darkest greens and reds half a level of Adobe RGB is many of sRGB.
    assert np.abs(difference[values.min(axis=-1) > 30]).max() < (6 if suffix == ".jpg" else 2)
    assert np.abs(stored - values.astype(float)).max() > 30


@pytest.mark.parametrize(("space", "index"), [(1, "R03"), (65535, "R98"), (65535, None), (1, None)])
def test_other_color_spaces_of_exif_leave_the_pixels_as_they_are(tmp_path, space, index):
    Image.fromarray(noise(9, 8, 3)).save(tmp_path / "a.png", exif=color_space_exif(space, index))
    np.testing.assert_array_equal(load_image(tmp_path / "a.png").pixels, noise(9, 8, 3))


def test_a_profile_goes_before_what_exif_says(tmp_path):
    image = Image.fromarray(np.full((8, 8, 3), 128, np.uint8))
    exif = color_space_exif(65535, "R03")
    image.save(tmp_path / "a.png", icc_profile=rgb_profile(RED, GREEN, BLUE, LINEAR), exif=exif)
    np.testing.assert_allclose(load_image(tmp_path / "a.png").pixels, encoded(np.array(128 / 255)), atol=1.5)


# --- what files say of themselves ---


def bmp32(pixels: np.ndarray, alpha: np.ndarray) -> bytes:
    """Return a BMP with a mask for alpha, as the clipboard has it: BITMAPV4HEADER."""
    height, width, _ = pixels.shape
    data = np.dstack([pixels[..., ::-1], alpha])[::-1].astype(np.uint8).tobytes()
    header = struct.pack("<IiiHHIIiiII", 108, width, height, 1, 32, 3, len(data), 0, 0, 0, 0)
    header += struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + b"BGRs" + b"\0" * 48
    return b"BM" + struct.pack("<IHHI", 122 + len(data), 0, 0, 122) + header + data


def test_a_bitmap_whose_alpha_is_zero_everywhere_is_opaque_and_that_is_said(tmp_path):
    path = tmp_path / "a.bmp"
    path.write_bytes(bmp32(noise(5, 7, 3), np.zeros((5, 7))))
    assert mode_of(path) == "RGBA"
    picture = load_image(path)
    np.testing.assert_array_equal(picture.pixels, noise(5, 7, 3))
    assert picture.alpha is None
    assert picture.note == f"{path}: its alpha is 0 everywhere, it is taken for opaque"
    assert load_image(path, long_side=3).note == picture.note


def test_a_bitmap_with_any_alpha_keeps_it(tmp_path):
    alpha = np.zeros((5, 7))
    alpha[2, 3] = 1
    (tmp_path / "a.bmp").write_bytes(bmp32(noise(5, 7, 3), alpha))
    picture = load_image(tmp_path / "a.bmp")
    np.testing.assert_allclose(picture.alpha, alpha / 255, rtol=1e-6)
    assert picture.note == ""


TEXT = "x" * 3_000_000
XMP = '<x:xmpmeta><rdf:Description tiff:Orientation="6"/>%s</x:xmpmeta>'


def itxt(name: bytes, text: str, compressed: bool = True) -> bytes:
    content = zlib.compress(text.encode()) if compressed else text.encode()
    return png_chunk(b"iTXt", name + b"\0" + (b"\1\0" if compressed else b"\0\0") + b"\0\0" + content)


BIG_TEXTS = {
    "zTXt": png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(TEXT.encode())),
    "iTXt": itxt(b"Comment", TEXT),
    "plain": itxt(b"Comment", TEXT, compressed=False),
    "xmp": itxt(b"XML:com.adobe.xmp", TEXT),
    "many": itxt(b"Comment", TEXT[:900_000]) * 80,
    "many xmp": itxt(b"XML:com.adobe.xmp", TEXT) * 30,
    "bomb": itxt(b"XML:com.adobe.xmp", "x" * 40_000_000),
    "exif as text": png_chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"0" * 40_000_000)),
    "damaged": png_chunk(b"zTXt", b"Comment\0\0not compressed"),
}


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("chunk", BIG_TEXTS.values(), ids=BIG_TEXTS)
def test_big_text_does_not_cost_the_picture(tmp_path, chunk, behind):
    save_image(tmp_path / "plain.png", noise(5, 7, 3), text={"Settings": "ours"})
    plain = (tmp_path / "plain.png").read_bytes()
    place = len(plain) - 12 if behind else 33
    (tmp_path / "a.png").write_bytes(plain[:place] + chunk + plain[place:])
    np.testing.assert_array_equal(load_image(tmp_path / "a.png").pixels, noise(5, 7, 3))
    assert read_text(tmp_path / "a.png")["Settings"] == "ours"


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("how", ["exif", "xmp", "big xmp"])
def test_a_png_is_turned_by_whatever_says_so_wherever_it_stands(tmp_path, how, behind):
    exif = Image.Exif()
    exif[274] = 6
    chunk = {
        "exif": png_chunk(b"eXIf", exif.tobytes()[6:]),
        "xmp": itxt(b"XML:com.adobe.xmp", XMP % "", compressed=False),
        "big xmp": itxt(b"XML:com.adobe.xmp", XMP % TEXT),
    }[how]
    Image.fromarray(noise(4, 6)).save(tmp_path / "plain.png")
    plain = (tmp_path / "plain.png").read_bytes()
    place = len(plain) - 12 if behind else 33
    (tmp_path / "a.png").write_bytes(plain[:place] + chunk + plain[place:])
    np.testing.assert_array_equal(load_image(tmp_path / "a.png").pixels[..., 0], np.rot90(noise(4, 6), -1))
    found = extent(tmp_path / "a.png")
    assert (found.height, found.width) == (6, 4)


def test_a_large_profile_is_applied_and_one_that_bursts_is_ignored(tmp_path):
    profile = rgb_profile(RED, GREEN, BLUE, LINEAR)
    image = Image.fromarray(np.full((8, 8, 3), 128, np.uint8))
    large = profile + b"\0" * 3_000_000
    image.save(tmp_path / "a.png", icc_profile=struct.pack(">I", len(large)) + large[4:])
    np.testing.assert_allclose(load_image(tmp_path / "a.png").pixels, encoded(np.array(128 / 255)), atol=1.5)
    image.save(tmp_path / "b.png", icc_profile=profile + b"\0" * 40_000_000)
    np.testing.assert_array_equal(load_image(tmp_path / "b.png").pixels, 128)


# --- orientation and frames ---


UPRIGHT = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: stored.transpose(1, 0, 2)[:, ::-1],
    7: lambda stored: stored.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda stored: stored.transpose(1, 0, 2)[::-1],
}


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_pictures_are_turned_upright(tmp_path, orientation, suffix):
    colors = [[[250, 0, 0], [0, 250, 0], [0, 0, 250]], [[250, 250, 0], [0, 250, 250], [9, 9, 9]]]
    stored = np.array(colors, np.uint8).repeat(16, axis=0).repeat(16, axis=1)
    exif = Image.Exif()
    exif[274] = orientation
    options: dict[str, Any] = {".jpg": {"quality": 100, "subsampling": 0}, ".webp": {"lossless": True}}.get(suffix, {})
    Image.fromarray(stored).save(tmp_path / f"a{suffix}", exif=exif, **options)
    np.testing.assert_allclose(load_image(tmp_path / f"a{suffix}").pixels, UPRIGHT[orientation](stored), atol=4)


def test_alpha_is_turned_with_the_pixels(tmp_path):
    values = noise(2, 3, 4)
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(values).save(tmp_path / "a.png", exif=exif)
    picture = load_image(tmp_path / "a.png")
    turned = UPRIGHT[6](values)
    np.testing.assert_array_equal(picture.pixels, turned[..., :3])
    np.testing.assert_allclose(picture.alpha, turned[..., 3] / 255, rtol=1e-6)


@pytest.mark.parametrize("exif", [b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\0\0", b"Exif\0\0"])
def test_damaged_exif_data_is_ignored(tmp_path, exif):
    values = noise(3, 4, 3)
    Image.fromarray(values).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(load_image(tmp_path / "a.png").pixels, values)


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.tif"])
def test_the_first_of_several_frames_is_read(tmp_path, name):
    first, second = (Image.new("RGB", (4, 4), color) for color in ((255, 0, 0), (0, 0, 255)))
    options: dict[str, Any] = {"lossless": True} if name == "a.webp" else {}
    first.save(tmp_path / name, save_all=True, append_images=[second], **options)
    with Image.open(tmp_path / name) as image:
        assert getattr(image, "n_frames", 1) == 2
    np.testing.assert_array_equal(load_image(tmp_path / name).pixels, np.full((4, 4, 3), [255, 0, 0]))


def test_what_pillow_warns_of_is_kept_from_the_user(tmp_path):
    content = png(2, 1, 8, 0, b"\0\x05\x06", png_chunk(b"acTL", struct.pack(">II", 0, 0)))
    with pytest.warns(UserWarning, match="APNG"):
        Image.open(io.BytesIO(content)).load()
    (tmp_path / "a.png").write_bytes(content)
    np.testing.assert_array_equal(load_image(tmp_path / "a.png").pixels[0, :, 0], [5, 6])


# --- files that cannot be read ---


def test_a_missing_file_is_refused(tmp_path):
    assert "there is no such file" in refused(load_image, tmp_path / "none.png")


def test_a_directory_is_refused(tmp_path):
    assert "it is a directory" in refused(load_image, tmp_path)


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "a.png").touch()
    assert "the file is empty" in refused(load_image, tmp_path / "a.png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_pipe_is_refused_rather_than_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    assert "not a regular file" in refused(load_image, tmp_path / "pipe.png")


def test_a_file_without_permission_is_refused(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(b"x")

    def denied(self: Path, *arguments: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    # An administrator may read everything, so the refusal of the system is imitated.
    monkeypatch.setattr(Path, "open", denied)
    assert os.strerror(errno.EACCES) in refused(load_image, tmp_path / "a.png")


@pytest.mark.parametrize(
    "given",
    [
        "https://example.org/a/b.jpg?size=large",
        "http://example.org",
        "FTP://example.org/a.png",
        "file:///home/me/a.png",
        "s3://bucket/a.png",
        "data:image/png;base64," + "A" * 5000,
    ],
)
def test_an_address_is_named_as_one_with_what_to_do(given, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for path in (given, Path(given)):
        with pytest.raises(ValueError, match="it is an address, not a file: ") as caught:
            load_image(path)
        assert given[:40] in str(caught.value)
        assert len(str(caught.value)) < 250


def test_a_file_that_is_called_like_an_address_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("http:").mkdir()
    Image.fromarray(noise(2, 3, 3)).save("http:/a.png")
    np.testing.assert_array_equal(load_image("http:/a.png").pixels, noise(2, 3, 3))


def test_a_folder_s_pictures_are_all_that_can_be_read(tmp_path):
    """Those that need a plug-in too: without it each is named, and none is passed over in silence."""
    names = ["a.HEIC", "b.jxl", "c.png", "d.ppm", "e.j2k"]
    for name in (*names, "f.txt", ".g.png"):
        (tmp_path / name).touch()
    assert [path.name for path in pictures_in(tmp_path)] == names


HEIC = struct.pack(">I", 24) + b"ftypheic\0\0\0\0mif1heic" + b"\0" * 100
JXL = [b"\xff\x0a" + b"\0" * 100, b"\0\0\0\x0cJXL \r\n\x87\n" + b"\0" * 100]


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"%PDF-1.7\n", "a PDF document: save it as PNG or JPEG first"),
        (b"8BPS\0\1", "a Photoshop document"),
        (b"<!DOCTYPE html>\n<html>", "a web page: download the picture itself"),
        (b'<?xml version="1.0"?>\n<svg xmlns="">', "an SVG drawing"),
        (b"PK\x03\x04", "a ZIP archive: unpack it first"),
        (struct.pack(">I", 20) + b"ftypisom\0\0\2\0isom" + b"\0" * 50, "a video"),
        (struct.pack(">I", 24) + b"ftypcrx \0\0\0\1crx isom" + b"\0" * 50, "a camera's raw file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"v/1\x01\2\0\0\0", "an OpenEXR picture"),
    ],
)
def test_a_file_of_another_kind_is_named(tmp_path, content, named):
    (tmp_path / "a.jpg").write_bytes(content)
    assert named in refused(load_image, tmp_path / "a.jpg")


@pytest.mark.parametrize(
    ("content", "module", "kind"),
    [(HEIC, "pillow_heif", "HEIC"), *((content, "pillow_jxl", "JPEG XL") for content in JXL)],
)
def test_a_kind_that_needs_a_plug_in_is_named_with_what_to_do(tmp_path, monkeypatch, content, module, kind):
    monkeypatch.setitem(sys.modules, module, None)  # as where it is not installed
    (tmp_path / "IMG_1.jpg").write_bytes(content)
    message = refused(load_image, tmp_path / "IMG_1.jpg")
    assert f"it is a {kind} picture: install what reads it with pip install pillow-" in message
    assert "or save it as JPEG or PNG first" in message


@pytest.mark.parametrize(
    ("content", "module", "name"),
    [(HEIC, "pillow_heif", "HEIF"), (JXL[0], "pillow_jxl", "JXL"), (JXL[1], "pillow_jxl", "JXL")],
)
def test_a_plug_in_that_is_installed_reads_its_kind(tmp_path, monkeypatch, content, module, name):
    class Plugged(ImageFile.ImageFile):
        format = name

        def _open(self) -> None:
            self._size, self._mode = (3, 2), "RGB"
            self.im = Image.new("RGB", (3, 2), (10, 20, 30)).im

    def register() -> None:
        Image.register_open(name, Plugged, lambda head: head[:12] == content[:12])

    plugin = types.ModuleType(module)
    if module == "pillow_heif":  # this one is asked to, the other does so where it is imported
        plugin.register_heif_opener = register
    monkeypatch.setattr(Image, "OPEN", Image.OPEN.copy())
    monkeypatch.setattr(Image, "ID", Image.ID.copy())
    if module == "pillow_jxl":
        register()
    monkeypatch.setitem(sys.modules, module, plugin)
    (tmp_path / "a.jpg").write_bytes(content)
    picture = load_image(tmp_path / "a.jpg")
    np.testing.assert_array_equal(picture.pixels, np.full((2, 3, 3), [10, 20, 30]))


@pytest.mark.parametrize(
    ("module", "name", "options"),
    [("pillow_heif", "a.heic", {"quality": -1, "chroma": 444}), ("pillow_jxl", "a.jxl", {"lossless": True})],
)
@pytest.mark.parametrize("orientation", [1, 6])
def test_what_a_plug_in_writes_is_read_under_any_name(tmp_path, module, name, options, orientation):
    plugin = pytest.importorskip(module)
    if module == "pillow_heif":
        plugin.register_heif_opener()
    values = np.kron(noise(8, 6, 4), np.ones((8, 8, 1))).astype(np.uint8)
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(values).save(tmp_path / name, exif=exif.tobytes(), **options)
    (tmp_path / name).rename(tmp_path / "IMG_1.jpg")
    picture, expected = load_image(tmp_path / "IMG_1.jpg"), UPRIGHT[orientation](values)
    np.testing.assert_allclose(picture.pixels, expected[..., :3], atol=4)
    np.testing.assert_allclose(picture.alpha, expected[..., 3] / 255, atol=0.01)
    found = extent(tmp_path / "IMG_1.jpg")
    assert (found.height, found.width) == picture.size


@pytest.mark.parametrize("content", [b"x", b"just some text\n", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"])
def test_a_file_that_is_no_picture_is_refused(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    assert "it is not a PNG, JPEG" in refused(load_image, tmp_path / "a.png")


def test_a_file_name_with_a_line_break_gives_one_line(tmp_path):
    assert "there is no such file" in refused(load_image, tmp_path / "a\nb.png")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".gif", ".bmp"])
def test_a_truncated_file_is_refused(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(noise(40, 40, 3)).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "damaged" in refused(load_image, path)


def test_truncated_files_stay_refused_for_the_whole_process():
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


@pytest.mark.parametrize(
    "content",
    [
        png(0, 1, 8, 2, b"\0"),
        b"GIF89a\0\0\0\0\0\0\0,\0\0\0\0\0\0\0\0\0\2\2D\1\0;",
        b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 0, 0, 1, 24, 0, 0, 0, 0, 0, 0),
        b"P6\n0 3\n255\n",
    ],
    ids=["png", "gif", "bmp", "ppm"],
)
def test_a_picture_without_pixels_is_refused(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    assert "cannot read" in refused(load_image, tmp_path / "a")


@pytest.mark.parametrize("height", [MAX_PIXELS // 20_000 + 1, MAX_PIXELS // 1000])
def test_a_picture_of_too_many_pixels_is_refused(tmp_path, height):
    (tmp_path / "a.png").write_bytes(png(20_000, height, 8, 2, b"\0"))
    assert "more than 200,000,000 pixels" in refused(load_image, tmp_path / "a.png")
    assert "more than 200,000,000 pixels" in refused(read_text, tmp_path / "a.png")


def test_the_limit_on_pixels_is_the_modules_own_and_is_given_back(tmp_path, monkeypatch):
    Image.fromarray(noise(10, 10, 3)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30)
    assert load_image(tmp_path / "a.png").pixels.shape == (10, 10, 3)
    monkeypatch.setattr(images, "MAX_PIXELS", 99)
    refused(load_image, tmp_path / "a.png")
    assert Image.MAX_IMAGE_PIXELS == 30


# --- what pictures take up ---


def one_bit(width: int, height: int) -> bytes:
    """Return a PNG of black pixels, of which a thousand take a byte or less."""
    return png(width, height, 1, 0, b"\0" * ((width + 7) // 8 + 1) * height)


def gif_with_a_frame_beyond(width: int, height: int) -> bytes:
    """Return a GIF of one pixel whose frame is larger."""
    frame = b"," + struct.pack("<HHHHB", 0, 0, width, height, 0)
    palette = b"\0\0\0\xff\xff\xff"
    return b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + palette + frame + b"\2\2D\1\0;"


@pytest.mark.parametrize(
    ("content", "pixels"),
    [
        (one_bit(14_000, 13_000), "14000x13000"),
        (gif_with_a_frame_beyond(14_000, 13_000), "14000x13000"),
        (png(13_000, 13_000, 8, 6, b"\0"), "13000x13000"),
        (b"P5\n14000 14000\n255\n", "14000x14000"),
    ],
    ids=["1-bit", "gif", "color and alpha", "ppm"],
)
def test_a_picture_that_takes_too_much_memory_is_refused_before_it_is_decoded(tmp_path, content, pixels, monkeypatch):
    def decoded(*_: Any) -> None:
        raise AssertionError("the picture was decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", decoded)
    (tmp_path / "a").write_bytes(content)
    for call in (load_image, load_painting):
        message = refused(call, tmp_path / "a")
        assert f"its {pixels} pixels would take " in message
        assert "2.0 GB are allowed: make it smaller first" in message
    assert extent(tmp_path / "a").decoding > images.MAX_BYTES


def test_a_picture_for_which_there_is_no_memory_is_refused(tmp_path, monkeypatch):
    Image.fromarray(noise(100, 100, 3)).save(tmp_path / "a.png")
    needed = extent(tmp_path / "a.png").decoding
    monkeypatch.setattr(images, "available_memory", lambda: needed)
    load_image(tmp_path / "a.png")
    monkeypatch.setattr(images, "available_memory", lambda: needed - 1)
    assert "are available: make it smaller first" in refused(load_image, tmp_path / "a.png")


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_for_which_there_is_no_room_is_read_at_a_part_of_its_size_and_that_is_said(
    tmp_path, monkeypatch, progressive
):
    exif = Image.Exif()
    exif[274] = 6
    smooth = np.kron(noise(10, 6, 3), np.ones((40, 40, 1))).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / "a.jpg", quality=95, exif=exif, progressive=progressive)
    whole, found = load_image(tmp_path / "a.jpg"), extent(tmp_path / "a.jpg")
    assert whole.note == ""
    monkeypatch.setattr(images, "MAX_BYTES", found.decoding * 2 // 3)
    half = load_image(tmp_path / "a.jpg")
    assert half.size == (120, 200)
    np.testing.assert_allclose(half.pixels[10:-10:20, 10:-10:20], whole.pixels[20:-20:40, 20:-20:40], atol=6)
    assert f"{tmp_path / 'a.jpg'}: its 400x240 pixels are read at 1/2 of the size" in half.note
    monkeypatch.setattr(images, "MAX_BYTES", found.decoding // 500)
    assert "would take" in refused(load_image, tmp_path / "a.jpg")


def test_a_jpeg_of_many_passes_is_refused_before_they_are_made(tmp_path, monkeypatch):
    Image.fromarray(noise(64, 64, 3)).save(tmp_path / "a.jpg", progressive=True)
    content = (tmp_path / "a.jpg").read_bytes()
    scans = content.count(b"\xff\xda")
    assert scans > 5
    monkeypatch.setattr(images, "MAX_SCANNED", scans * 64 * 64)
    load_image(tmp_path / "a.jpg")
    monkeypatch.setattr(images, "MAX_SCANNED", scans * 64 * 64 - 1)
    assert "progressive JPEG of too many passes" in refused(load_image, tmp_path / "a.jpg")


def rle_bmp(bits: int, width: int, height: int, runs: bytes) -> bytes:
    palette = b"\0\0\0\0" * 2**bits
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, 1 if bits == 8 else 2, len(runs), 0, 0, 2**bits, 0)
    offset = 14 + len(header) + len(palette)
    return b"BM" + struct.pack("<IHHI", offset + len(runs), 0, 0, offset) + header + palette + runs


SLOW = {
    "text ppm": (b"P3\n2000 2000\n255\n" + b"1 2 3\n" * 100, "written as text: save it as PNG first"),
    "long comment": (b"P6\n#" + b"x" * 200_000 + b"\n1 1\n255\nabc", "no size where a PPM has one"),
    "4-bit bmp": (rle_bmp(4, 10_000, 10_000, b"\xff\x12" * 100), "a large BMP of a compressed kind"),
    "8-bit bmp": (rle_bmp(8, 100, 100, b"\1\2" * 10_500_000), "a large BMP of a compressed kind"),
    "png chunks": (png(1, 1, 8, 0, b"\0\1", png_chunk(b"teSt", b"") * 100_001), "more than 100,000 chunks"),
    "jpeg comments": (b"\xff\xd8" + b"\xff\xfe\0\3x" * 100_001, "more than 100,000 pieces of metadata"),
    "jpeg filling": (b"\xff\xd8" + b"\xff" * 200_000, "more than 100,000 pieces of metadata"),
    "jpeg zeros": (b"\xff\xd8" + b"\xff\0" * 200_000, "more than 100,000 pieces of metadata"),
    "tiff directory": (
        b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 2_000_000) + b"\0" * 1000,
        "its directory is longer than the file",
    ),
    "tiff entries": (
        b"II*\0\x08\0\0\0\xff\xff" + struct.pack("<HHII", 270, 2, 700_000, 8) * 65_535,
        "its directory holds more than the file",
    ),
}


@pytest.mark.parametrize(("content", "named"), SLOW.values(), ids=SLOW)
def test_what_would_be_read_byte_by_byte_for_long_is_refused_at_once(tmp_path, content, named):
    (tmp_path / "a").write_bytes(content)
    began = time.process_time()
    assert named in refused(load_image, tmp_path / "a")
    assert time.process_time() - began < 2


def test_small_files_of_these_kinds_are_read(tmp_path):
    (tmp_path / "a").write_bytes(b"P3 # comment\n# another\n2 1 255\n1 2 3\n# between\n4 5 6\n")
    np.testing.assert_array_equal(load_image(tmp_path / "a").pixels, [[[1, 2, 3], [4, 5, 6]]])
    (tmp_path / "a").write_bytes(rle_bmp(8, 3, 2, b"\3\0\0\0\3\0\0\0\0\1"))
    assert load_image(tmp_path / "a").size == (2, 3)
    Image.fromarray(noise(8, 8, 3)).save(tmp_path / "a.jpg")
    plain = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "b.jpg").write_bytes(plain[:2] + b"\xff" * 50 + plain[2:])
    np.testing.assert_array_equal(load_image(tmp_path / "b.jpg").pixels, load_image(tmp_path / "a.jpg").pixels)


def test_the_extent_is_that_of_the_picture(tmp_path):
    for name, content in samples().items():
        (tmp_path / "a").write_bytes(content)
        picture, found = load_image(tmp_path / "a"), extent(tmp_path / "a")
        assert (found.height, found.width) == picture.size, name
        bytes_ = picture.pixels.nbytes + (0 if picture.alpha is None else picture.alpha.nbytes)
        assert found.decoded in (bytes_, bytes_ * 4 // 3), name  # alpha may turn out to be opaque
        assert found.decoding > found.decoded, name


PEAK = """
import sys
from pathlib import Path
from tools.media.images import load_image

def kilobytes(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))

load_image(sys.argv[1])  # what this loads is not of the picture
before = kilobytes("VmRSS:")
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
load_image(sys.argv[2])
print(1024 * (kilobytes("VmHWM:") - before))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells the peak, and begins it anew")
@pytest.mark.parametrize(
    ("name", "mode", "options"),
    [
        ("a.png", "RGBA", {"compress_level": 1}),
        ("a.jpg", "RGB", {"progressive": True}),
        ("a.webp", "RGBA", {"method": 0, "lossless": True}),
        ("a.tif", "RGB", {"compression": "tiff_lzw"}),
        ("a.gif", "L", {}),
    ],
)
def test_decoding_takes_no_more_memory_than_was_told(tmp_path, name, mode, options):
    values = np.broadcast_to(noise(500, 1, 4), (500, 3000, 4)).repeat(5, axis=0)
    Image.fromarray(values).convert(mode).save(tmp_path / name, **options)
    Image.fromarray(values[:64, :64]).convert(mode).save(tmp_path / f"small-{name}", **options)
    run = [sys.executable, "-c", PEAK, str(tmp_path / f"small-{name}"), str(tmp_path / name)]
    result = subprocess.run(run, cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True)
    told, took = extent(tmp_path / name), int(result.stdout)
    assert told.decoded * 0.9 < took < told.decoding * 1.05, (told, took)


def test_running_out_of_memory_is_said_with_the_name_of_the_file(tmp_path, monkeypatch):
    def exhausted(image: Image.Image) -> Picture:
        raise MemoryError

    Image.fromarray(noise(2, 2, 3)).save(tmp_path / "a.png")
    monkeypatch.setattr(images.pixels, "decode", exhausted)
    assert "not enough memory" in refused(load_image, tmp_path / "a.png")


def samples() -> dict[str, bytes]:
    """Return a small valid file of every kind."""
    color, gray, exif = Image.fromarray(noise(9, 11, 4)), Image.fromarray(noise(9, 11)), Image.Exif()
    exif[274], exif[270] = 6, "a description"
    both: dict[str, Any] = {"icc_profile": rgb_profile(BLUE, GREEN, RED, LINEAR), "exif": exif}
    rgb = color.convert("RGB")
    wanted: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
        "png": (color, "PNG", both),
        "palette png": (rgb.quantize(8), "PNG", {"transparency": b"\xff\x80"}),
        "animated png": (color, "PNG", {"save_all": True, "append_images": [color.rotate(90)]}),
        "deep png": (Image.fromarray(noise(9, 11).astype(np.uint16) * 257), "PNG", {}),
        "jpeg": (rgb, "JPEG", both),
        "cmyk jpeg": (rgb.convert("CMYK"), "JPEG", {"icc_profile": cmyk_profile()}),
        "webp": (color, "WEBP", both),
        "lossless webp": (color, "WEBP", {"lossless": True}),
        "tiff": (rgb, "TIFF", both),
        "deflated tiff": (color, "TIFF", {"compression": "tiff_deflate"}),
        "float tiff": (Image.fromarray(noise(9, 11).astype(np.float32) / 255), "TIFF", {}),
        "gif": (gray, "GIF", {"save_all": True, "append_images": [gray.rotate(90)], "transparency": 3}),
        "bmp": (rgb, "BMP", {}),
        "ppm": (rgb, "PPM", {}),
    }
    files = {}
    for name, (image, kind, options) in wanted.items():
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        files[name] = buffer.getvalue()
    return files


@pytest.mark.parametrize(("name", "content"), samples().items(), ids=samples())
def test_damaged_files_are_refused_or_give_a_finite_picture(tmp_path, monkeypatch, name, content):
    # A damaged header may promise any size; what decoding a huge one costs is not the question here.
    monkeypatch.setattr(images, "MAX_PIXELS", 10_000)
    draw = random.Random(name)
    damaged = [content[: draw.randrange(1, len(content))] for _ in range(30)]
    for _ in range(90):
        bytes_ = bytearray(content)
        # Most of what can go wrong is decided by the first bytes.
        region = draw.choice([60, 200, len(content)])
        for _ in range(draw.choice([1, 3, 10])):
            bytes_[draw.randrange(min(region, len(content)))] = draw.choice([0, 255, draw.randrange(256)])
        damaged.append(bytes(bytes_))
    path = tmp_path / "picture"
    path.write_bytes(content)
    assert load_image(path).pixels.shape[2] == 3
    refusals: list[str] = []
    for bytes_ in damaged:
        path.write_bytes(bytes_)
        try:
            picture = load_image(path)
        except ValueError as error:
            refusals.append(str(error))
            continue
        assert picture.pixels.dtype == np.float32
        assert picture.pixels.ndim == 3
        assert picture.pixels.min() >= 0
        assert picture.pixels.max() <= 255
        if picture.alpha is not None:
            assert picture.alpha.shape == picture.pixels.shape[:2]
            assert 0 <= picture.alpha.min() < 1
            assert picture.alpha.max() <= 1
    assert refusals
    for message in refusals:
        assert message.startswith(f"cannot read {str(path)!r}: ")
        assert "\n" not in message


# --- sizes ---


@pytest.mark.parametrize("long_side", [1, 5, 20, 33])
def test_loading_with_a_longer_side_gives_exactly_that_size(tmp_path, long_side):
    Image.fromarray(noise(10, 20, 3)).save(tmp_path / "a.png")
    assert load_image(tmp_path / "a.png", long_side=long_side).pixels.shape == (*fit(10, 20, long_side), 3)


def test_loading_with_a_size_gives_exactly_that_size_after_turning_upright(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(noise(10, 20, 4)).save(tmp_path / "a.png", exif=exif)
    picture = load_image(tmp_path / "a.png", size=(31, 17))
    assert picture.pixels.shape == (31, 17, 3)
    assert picture.alpha is not None
    assert picture.alpha.shape == (31, 17)
    assert load_image(tmp_path / "a.png", long_side=10).pixels.shape == (10, 5, 3)


def test_loading_with_both_a_longer_side_and_a_size_is_refused(tmp_path):
    Image.fromarray(noise(2, 2, 3)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="at most one"):
        load_image(tmp_path / "a.png", long_side=3, size=(3, 3))


def test_threads_that_read_at_once_leave_pillow_as_it_was(tmp_path):
    path = tmp_path / "picture.png"
    save_image(path, np.zeros((40, 40, 3)))
    limit, filters = Image.MAX_IMAGE_PIXELS, list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        pictures = list(pool.map(load_image, [path] * 200))
    assert len(pictures) == 200
    assert limit == Image.MAX_IMAGE_PIXELS
    assert list(warnings.filters) == filters
