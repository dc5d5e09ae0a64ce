"""TIFF files that Pillow does not read, or reads wrongly: the pixels of the definition."""

import itertools

import numpy as np
import pytest
from PIL import Image, ImageCms

from tests.tools.media.test_images import BLUE, GREEN, LINEAR, RED, encoded, gray_profile, refused, rgb_profile
from tests.tools.media.tiff_files import DEFLATE, LZW, PACKBITS, tiff_file
from tools.media.images import extent, load_image

GRAY, RGB, SEPARATED, CIELAB, ICCLAB = 1, 2, 5, 8, 9
EXTRA, ORIENTATION, PROFILE = 338, 274, 34675
CHANNELS = {0: 1, GRAY: 1, RGB: 3, SEPARATED: 4}
SIZE = (23, 18)


def samples(kind, depth, seed=0):
    random = np.random.default_rng(seed)
    if np.dtype(kind).kind == "f":
        return random.random((*SIZE, depth)).astype(kind)
    return random.integers(0, np.iinfo(kind).max, (*SIZE, depth), dtype=kind, endpoint=True)


def levels(values):
    top = 1 if values.dtype.kind == "f" else np.iinfo(values.dtype).max
    return values.astype(np.float64) * (255 / top)


def colors(values, photometric):
    """Return the pixels that samples stand for, (H, W, 3), by the format's definition."""
    found = levels(values)[..., : CHANNELS[photometric]]
    if photometric == 0:
        found = 255 - found
    if photometric == SEPARATED:
        found = (255 - found[..., :3]) * (255 - found[..., 3:]) / 255
    return np.broadcast_to(found, (*SIZE, 3))


KINDS = list(itertools.product(("u1", "u2", "f2", "f4", "f8"), CHANNELS, ((), (0,), (2,)), (False, True)))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("layout", [{"rows": 5}, {"rows": 7, "compression": DEFLATE}, {"tile": (16, 16)}], ids=str)
def test_samples_of_any_kind_are_read_as_the_format_defines_them(tmp_path, layout, order):
    path = tmp_path / "a.tif"
    for kind, photometric, extra, planes in KINDS:
        values = samples(kind, CHANNELS[photometric] + len(extra))
        further = {EXTRA: list(extra)} if extra else {}
        path.write_bytes(tiff_file(values, photometric, planes=planes, order=order, further=further, **layout))
        picture = load_image(path)
        case = f"{kind} {photometric} {extra} {planes}"
        atol = 2 if photometric == SEPARATED else 1.01  # inks are rounded to 8 bits before and after they are mixed
        np.testing.assert_allclose(picture.pixels, colors(values, photometric), atol=atol, err_msg=case)
        if extra == (2,):
            np.testing.assert_allclose(picture.alpha, levels(values)[..., -1] / 255, atol=1.01 / 255, err_msg=case)
        else:
            assert picture.alpha is None, case


@pytest.mark.parametrize("compression", [LZW, PACKBITS, DEFLATE])
@pytest.mark.parametrize(("kind", "predictor"), [("u1", 2), ("u2", 2), ("f4", 3), ("f2", 3), ("f4", 1)])
def test_what_is_compressed_and_predicted_is_restored(tmp_path, compression, kind, predictor):
    for order, planes in itertools.product("<>", (False, True)):
        values = samples(kind, 5)
        options = {"planes": planes, "order": order, "rows": 6, "compression": compression, "predictor": predictor}
        (tmp_path / "a.tif").write_bytes(tiff_file(values, SEPARATED, further={EXTRA: [2]}, **options))
        np.testing.assert_allclose(load_image(tmp_path / "a.tif").pixels, colors(values, SEPARATED), atol=2)


def test_planes_of_sixteen_bits_are_the_picture_and_not_stripes(tmp_path):
    values = samples("u2", 3)
    (tmp_path / "a.tif").write_bytes(tiff_file(values, RGB, planes=True))
    np.testing.assert_allclose(load_image(tmp_path / "a.tif").pixels, values / 257, rtol=1e-6)


def test_gray_and_alpha_of_sixteen_bits_keep_their_precision(tmp_path):
    values = samples("u2", 2)
    (tmp_path / "a.tif").write_bytes(tiff_file(values, GRAY, compression=DEFLATE, further={EXTRA: [2]}))
    picture = load_image(tmp_path / "a.tif")
    np.testing.assert_allclose(picture.pixels[..., 0], values[..., 0] / 257, rtol=1e-6)
    np.testing.assert_allclose(picture.alpha, values[..., 1] / 65535, rtol=1e-6)


def test_colors_that_were_multiplied_by_alpha_are_divided_by_it(tmp_path):
    plain, alpha = samples("f4", 3), np.linspace(0, 1, SIZE[0] * SIZE[1], dtype=np.float32).reshape(*SIZE, 1)
    (tmp_path / "a.tif").write_bytes(tiff_file(np.dstack([plain * alpha, alpha]), RGB, further={EXTRA: [1]}))
    picture = load_image(tmp_path / "a.tif")
    np.testing.assert_allclose(picture.alpha, alpha[..., 0], rtol=1e-6)
    np.testing.assert_allclose(picture.pixels[alpha[..., 0] > 0], 255 * plain[alpha[..., 0] > 0], atol=0.01)


@pytest.mark.parametrize(
    ("kind", "photometric", "planes"),
    [("u1", CIELAB, True), ("u2", CIELAB, False), ("u2", ICCLAB, False), ("u1", ICCLAB, True), ("f4", CIELAB, False)],
)
def test_lab_of_any_depth_is_converted(tmp_path, kind, photometric, planes):
    rgb = np.random.default_rng(1).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    lab = ImageCms.profileToProfile(
        Image.fromarray(rgb), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    L, a, b = (np.asarray(channel).astype(np.float64) for channel in lab.split())  # a and b plus 128
    if kind == "f4":
        stored = np.stack([L / 2.55, a - 128, b - 128], axis=-1).astype(np.float32)
    elif photometric == CIELAB:
        top, unit = np.iinfo(kind).max, 256 ** (np.dtype(kind).itemsize - 1)
        signed = [((channel - 128) * unit).astype(np.int64) % (top + 1) for channel in (a, b)]
        stored = np.stack([np.round(L / 255 * top), *signed], axis=-1).astype(kind)
    else:
        stored = (np.stack([L, a, b], axis=-1) * 256 ** (np.dtype(kind).itemsize - 1)).astype(kind)
    (tmp_path / "a.tif").write_bytes(tiff_file(stored, photometric, planes=planes))
    np.testing.assert_array_equal(load_image(tmp_path / "a.tif").pixels, np.asarray(lab.convert("RGB")))


@pytest.mark.parametrize("photometric", [GRAY, RGB])
def test_profiles_are_applied(tmp_path, photometric):
    profile = gray_profile() if photometric == GRAY else rgb_profile(RED, GREEN, BLUE, LINEAR)
    values = np.full((*SIZE, CHANNELS[photometric]), 128 * 257, np.uint16)
    (tmp_path / "a.tif").write_bytes(
        tiff_file(values, photometric, planes=photometric == RGB, further={PROFILE: profile})
    )
    np.testing.assert_allclose(load_image(tmp_path / "a.tif").pixels, encoded(np.array(128 / 255)), atol=1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright(tmp_path, orientation):
    values = samples("f4", 4)
    plain = tiff_file(values, RGB, further={EXTRA: [2], ORIENTATION: [orientation]})
    (tmp_path / "a.tif").write_bytes(plain)
    picture = load_image(tmp_path / "a.tif")
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(np.round(levels(values)).astype(np.uint8)).save(tmp_path / "b.png", exif=exif)
    expected = load_image(tmp_path / "b.png")
    np.testing.assert_allclose(picture.pixels, expected.pixels, atol=0.51)
    np.testing.assert_allclose(picture.alpha, expected.alpha, atol=0.51 / 255)
    found = extent(tmp_path / "a.tif")
    assert (found.height, found.width) == picture.size


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (tiff_file(samples("i2", 3), RGB), "RGB, 3 signed channels of 16 bits"),
        (tiff_file(samples("u4", 3), RGB, sample_format=[2] * 3), "RGB, 3 signed channels of 32 bits"),
        (tiff_file(samples("u8", 3), RGB), "RGB, 3 channels of 64 bits"),
        (tiff_file(samples("u4", 3), RGB), "RGB, 3 channels of 32 bits"),
        (tiff_file(samples("i4", 1), GRAY, compression=DEFLATE, order=">"), "gray, 1 signed channel of 32 bits"),
        (tiff_file(samples("i2", 1), GRAY, compression=DEFLATE, order=">"), "gray, 1 signed channel of 16 bits"),
        (tiff_file(samples("f4", 1), GRAY, further={258: list(range(1, 90))}), "of 1 and 2 and 3 and 4 bits"),
        (tiff_file(samples("f4", 7), 32844), "color type 32844, 7 floating channels of 32 bits"),
    ],
)
def test_kinds_that_are_not_read_are_named(tmp_path, content, named):
    (tmp_path / "a.tif").write_bytes(content)
    message = refused(load_image, tmp_path / "a.tif")
    assert named in message
    assert "save it as PNG" in message
    assert "damaged" not in message


def test_floating_samples_outside_of_0_to_1_are_refused(tmp_path):
    (tmp_path / "a.tif").write_bytes(tiff_file(samples("f4", 3) * 300, RGB))
    message = refused(load_image, tmp_path / "a.tif")
    assert "expected 0 to 1" in message
    assert "damaged" not in message


def test_a_camera_s_raw_file_is_named_instead_of_read_as_its_small_picture(tmp_path):
    (tmp_path / "a.dng").write_bytes(tiff_file(samples("u1", 3), RGB, further={50706: b"\1\4\0\0"}))
    assert "a camera's raw file" in refused(load_image, tmp_path / "a.dng")


@pytest.mark.parametrize(
    "content",
    [
        tiff_file(samples("f4", 3), RGB)[:600],
        tiff_file(samples("f4", 3), RGB, further={279: [100]}),
        tiff_file(samples("f4", 3), RGB, further={273: [10**9]}),
        tiff_file(samples("f4", 3), RGB, rows=5, further={273: [8]}),
        tiff_file(samples("f4", 3), RGB, tile=(16, 16), further={322: [2**31], 323: [2**31]}),
        tiff_file(samples("f4", 3), RGB, tile=(16, 16), further={322: [0]}),
        tiff_file(samples("f4", 3), RGB, further={256: [60_000], 257: [60_000]}),
        tiff_file(samples("f4", 3), RGB, compression=DEFLATE)[:-1000] + b"\0" * 1000,
        tiff_file(samples("u1", 3), RGB, rows=12, further={257: [2_000]}),
        tiff_file(samples("u1", 3), RGB, tile=(16, 16), further={256: [2_000]}),
    ],
    ids=[
        "cut off",
        "short",
        "elsewhere",
        "one strip of five",
        "huge tiles",
        "no tiles",
        "huge",
        "garbage",
        "rows",
        "columns",
    ],
)
def test_damaged_files_are_refused(tmp_path, content):
    (tmp_path / "a.tif").write_bytes(content)
    refused(load_image, tmp_path / "a.tif")
