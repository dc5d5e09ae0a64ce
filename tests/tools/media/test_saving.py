"""Pictures that are written come back as they were, with what they tell of themselves."""

from __future__ import annotations

import errno
import io
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, JpegImagePlugin, PngImagePlugin

from tests.tools.media.test_images import LOSSLESS, SUFFIXES, noise, refused
from tools.media.images import load_image, read_text
from tools.media.saving import check_output, encoded_image, save_image

# --- writing ---


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_a_lossless_picture_comes_back_exactly_even_under_transparency(tmp_path, suffix):
    values, alpha = noise(5, 7, 3), noise(5, 7, seed=1).astype(np.float32) / 255
    alpha[0] = 0
    save_image(tmp_path / f"a{suffix}", values, alpha)
    picture = load_image(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(picture.pixels, values)
    np.testing.assert_allclose(picture.alpha, alpha, atol=1e-6)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_suffix_decides_the_format_in_either_case(tmp_path, suffix):
    for name in (f"a{suffix}", f"A{suffix.upper()}"):
        save_image(str(tmp_path / name), noise(4, 4, 3))
        with Image.open(tmp_path / name) as image:
            assert image.format == {"p": "PNG", "j": "JPEG", "w": "WEBP", "t": "TIFF"}[suffix[1]]
            assert image.size == (4, 4)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_picture_is_encoded_in_memory_as_it_would_be_written(tmp_path, suffix):
    values, alpha = noise(5, 7, 3), noise(5, 7, seed=1).astype(np.float32) / 255
    save_image(tmp_path / f"a{suffix}", values, alpha, quality=60)
    assert encoded_image(suffix, values, alpha, quality=60) == (tmp_path / f"a{suffix}").read_bytes()
    with pytest.raises(ValueError, match=r"the suffix is '\.bmp'"):
        encoded_image(".bmp", values)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_values_are_rounded_to_the_nearest_and_clipped(tmp_path, dtype):
    values = np.array([[[-5, 0.4, 0.6], [127.4, 127.6, 300]]], dtype)
    save_image(tmp_path / "a.png", values)
    np.testing.assert_array_equal(load_image(tmp_path / "a.png").pixels, [[[0, 0, 1], [127, 128, 255]]])


def test_alpha_is_clipped(tmp_path):
    save_image(tmp_path / "a.jpg", np.full((8, 8, 3), 100.0), np.full((8, 8), 1.5))
    np.testing.assert_allclose(load_image(tmp_path / "a.jpg").pixels, 100, atol=1)
    save_image(tmp_path / "a.png", noise(1, 3, 3), np.array([[-0.5, 0.5, 1.5]]))
    np.testing.assert_allclose(load_image(tmp_path / "a.png").alpha, [[0, 128 / 255, 1]], rtol=1e-6)


def test_a_jpeg_is_laid_on_white(tmp_path):
    pixels = np.full((8, 24, 3), [200.0, 100.0, 0.0])
    alpha = np.repeat([0, 0.5, 1], 8) * np.ones((8, 1))
    save_image(tmp_path / "a.jpg", pixels, alpha)
    loaded = load_image(tmp_path / "a.jpg")
    assert loaded.alpha is None
    for start, color in ((0, [255, 255, 255]), (8, [227.5, 177.5, 127.5]), (16, [200, 100, 0])):
        np.testing.assert_allclose(loaded.pixels[:, start : start + 8].mean((0, 1)), color, atol=2)


def test_a_jpeg_keeps_full_color_resolution_and_high_quality(tmp_path):
    save_image(tmp_path / "a.jpg", np.kron(noise(4, 4, 3), np.ones((8, 8, 1))))
    with Image.open(tmp_path / "a.jpg") as image:
        assert isinstance(image, JpegImagePlugin.JpegImageFile)
        assert JpegImagePlugin.get_sampling(image) == 0
    np.testing.assert_allclose(load_image(tmp_path / "a.jpg").pixels[::8, ::8], noise(4, 4, 3), atol=8)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_srgb_profile_is_embedded_and_does_not_depend_on_the_time(tmp_path, suffix):
    save_image(tmp_path / f"a{suffix}", noise(4, 4, 3))
    with Image.open(tmp_path / f"a{suffix}") as image:
        content = image.info["icc_profile"]
    assert "sRGB" in ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(content)))
    assert struct.unpack(">6H", content[24:36]) == (2000, 1, 1, 0, 0, 0)


@pytest.mark.parametrize("name", ["a.bmp", "a.gif", "a", "a.png.bak"])
def test_an_unknown_suffix_is_refused_with_the_four_formats(tmp_path, name):
    for call in (check_output, lambda path: save_image(path, noise(2, 2, 3))):
        message = refused(call, tmp_path / name)
        assert all(kind in message for kind in ("PNG (.png)", "JPEG (.jpg", "WebP (.webp)", "TIFF (.tif"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("pixels", "alpha", "expected"),
    [
        (np.zeros((4, 4)), None, "(height, width, 3)"),
        (np.zeros((4, 4, 4)), None, "(height, width, 3)"),
        (np.zeros((0, 4, 3)), None, "(height, width, 3)"),
        (np.zeros((4, 4, 3), np.int64), None, "floating type or uint8"),
        (np.full((4, 4, 3), np.nan), None, "48 of its 48 pixel values"),
        (np.where(np.arange(48).reshape(4, 4, 3) == 5, np.inf, 0), None, "1 of its 48 pixel values"),
        (np.zeros((4, 4, 3)), np.ones((4, 5)), "expected floating (4, 4)"),
        (np.zeros((4, 4, 3)), np.ones((4, 4), np.uint8), "expected floating (4, 4)"),
        (np.zeros((4, 4, 3)), np.full((4, 4), np.nan), "16 of its 16 alpha values"),
    ],
)
def test_arrays_that_are_no_picture_are_refused(tmp_path, pixels, alpha, expected):
    assert expected in refused(save_image, tmp_path / "a.png", pixels, alpha)
    assert list(tmp_path.iterdir()) == []


def out_of_space(self: Path, content: bytes) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))


def test_a_save_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.webp"
    save_image(path, noise(4, 4, 3))
    before = path.read_bytes()
    refused(save_image, path, np.full((4, 4, 3), np.nan))
    assert "16383" in refused(save_image, path, np.zeros((1, 16384, 3)))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", out_of_space)
        assert os.strerror(errno.ENOSPC) in refused(save_image, path, noise(4, 4, 3))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_save_that_fails_leaves_no_new_file(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "write_bytes", out_of_space)
    refused(save_image, tmp_path / "a.png", noise(4, 4, 3))
    assert list(tmp_path.iterdir()) == []


def test_a_save_replaces_an_existing_picture(tmp_path):
    save_image(tmp_path / "a.png", noise(4, 4, 3))
    save_image(tmp_path / "a.png", noise(2, 2, 3, seed=1))
    np.testing.assert_array_equal(load_image(tmp_path / "a.png").pixels, noise(2, 2, 3, seed=1))
    assert list(tmp_path.iterdir()) == [tmp_path / "a.png"]


def test_an_output_that_can_be_written_passes_and_leaves_nothing(tmp_path):
    check_output(tmp_path / "a.png")
    check_output(str(tmp_path / "a.JPEG"))
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_is_a_directory_or_in_none_is_refused(tmp_path):
    (tmp_path / "a.png").mkdir()
    assert "it is a folder, give the name of a file" in refused(check_output, tmp_path / "a.png")
    assert "does not exist" in refused(check_output, tmp_path / "none" / "a.png")
    assert "does not exist" in refused(save_image, tmp_path / "none" / "a.png", noise(2, 2, 3))


# --- metadata ---


TEXT = {
    "Command": "transfer --style 'Звёздная ночь.jpg' --content 富士山.png",
    "Two words": 'quotes "…", line\nbreak, tab\t, 🎨',
    "Empty": "",
}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_metadata_comes_back_from_every_format(tmp_path, suffix):
    save_image(tmp_path / f"a{suffix}", noise(4, 4, 3), text=TEXT)
    assert read_text(tmp_path / f"a{suffix}") == TEXT
    assert load_image(tmp_path / f"a{suffix}").pixels.shape == (4, 4, 3)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_picture_without_metadata_gives_none(tmp_path, suffix):
    save_image(tmp_path / f"a{suffix}", noise(4, 4, 3))
    assert read_text(tmp_path / f"a{suffix}") == {}


def test_metadata_of_png_is_international_text(tmp_path):
    save_image(tmp_path / "a.png", noise(4, 4, 3), text={"Style": "富士山"})
    assert b"iTXtStyle\0\0\0\0\0" + "富士山".encode() in (tmp_path / "a.png").read_bytes()


def test_stray_bytes_of_a_file_name_are_written_as_an_escape(tmp_path):
    # This is how Python represents a byte of a file name or an argument that is not UTF-8.
    name = "caf\udce9.jpg"
    for suffix in SUFFIXES:
        save_image(tmp_path / f"a{suffix}", noise(2, 2, 3), text={"Style": name})
        assert read_text(tmp_path / f"a{suffix}") == {"Style": "caf\\udce9.jpg"}


@pytest.mark.parametrize("description", ["Sunset over the sea", "[1, 2]", '{"a": 1}', "{"])
def test_a_description_by_another_program_is_not_taken_for_metadata(tmp_path, description):
    exif = Image.Exif()
    exif[270] = description
    Image.fromarray(noise(4, 4, 3)).save(tmp_path / "a.jpg", exif=exif)
    assert read_text(tmp_path / "a.jpg") == {}


def test_plain_text_by_another_program_is_not_taken_for_metadata(tmp_path):
    info = PngImagePlugin.PngInfo()
    info.add_text("Software", "another program")
    Image.fromarray(noise(4, 4, 3)).save(tmp_path / "a.png", pnginfo=info)
    assert read_text(tmp_path / "a.png") == {}


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("name", ["", "a" * 80, " a", "a\0b", "a\nb", "é"])
def test_metadata_names_that_png_cannot_hold_are_refused(tmp_path, name, suffix):
    message = refused(save_image, tmp_path / f"a{suffix}", noise(2, 2, 3), text={name: "x"})
    assert "1 to 79" in message
    assert list(tmp_path.iterdir()) == []


def test_metadata_too_long_for_a_jpeg_is_refused(tmp_path):
    refused(save_image, tmp_path / "a.jpg", noise(2, 2, 3), text={"Command": "x" * 70_000})
    save_image(tmp_path / "a.png", noise(2, 2, 3), text={"Command": "x" * 70_000})
    assert len(read_text(tmp_path / "a.png")["Command"]) == 70_000


def test_reading_the_metadata_of_what_is_no_picture_is_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(b"text")
    assert "there is no such file" in refused(read_text, tmp_path / "none.png")
    assert "it is not a PNG" in refused(read_text, tmp_path / "a.png")
