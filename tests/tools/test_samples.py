from __future__ import annotations

import io
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from PIL import Image

from tests.tools.calling import called
from tools.drawing.colors import to_bytes
from tools.drawing.dabs import dotted
from tools.drawing.fields import blur, fractal, grid, look_up, shrink, smooth_noise
from tools.drawing.strokes import Brush, Canvas, lit, paint
from tools.drawing.terrain import UNDER_WATER, Camera, Land, distances, normals, see, sunlit
from tools.images import load_image
from tools.samples import QUALITY, SAMPLES, main

draw = cache(lambda name, height, width, seed: SAMPLES[name](height, width, seed))


@pytest.fixture
def call(capsys) -> Callable[..., str]:
    """Run the command line as a person does; return what it prints."""

    def call(*arguments: object, code: int = 0) -> str:
        output, errors = called(main, capsys, arguments, code)
        if code == 2:
            assert output == ""
            assert re.fullmatch(r"samples: [^\n]+\n", errors), errors
            return errors
        assert errors == ""
        return output

    return call


def blocks(values, side):
    """Return a picture's squares of ``side`` pixels, shape (n, side * side, ...)."""
    height, width = values.shape[0] // side, values.shape[1] // side
    cut = values[: height * side, : width * side].reshape(height, side, width, side, *values.shape[2:])
    return cut.swapaxes(1, 2).reshape(height * width, side * side, *values.shape[2:])


def correlation(first, second):
    return np.corrcoef(np.ravel(first), np.ravel(second))[0, 1]


def orientation(picture):
    """Return the direction of least change, in radians, and the coherence, 0 to 1, of a picture's structure tensor."""
    # Differences of neighbours are only isotropic where it is smooth.
    down, right = np.gradient(blur(picture.astype(np.float64).mean(axis=2), 1))
    a, b, c = (right * right).mean(), (right * down).mean(), (down * down).mean()
    return 0.5 * np.arctan2(2 * b, a - c) + np.pi / 2, np.hypot(a - c, 2 * b) / (a + c)


# ---- all pictures ----


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize(("height", "width"), [(64, 64), (65, 131), (141, 77)])
def test_a_picture_has_the_size_asked_for(name, height, width):
    picture = draw(name, height, width, 3)
    assert picture.shape == (height, width, 3)
    assert picture.dtype == np.uint8
    assert picture.std() > 30


@pytest.mark.parametrize("name", SAMPLES)
def test_the_same_seed_gives_the_same_bits_and_another_one_another_picture(name):
    picture = draw(name, 96, 128, 0)
    np.testing.assert_array_equal(SAMPLES[name](96, 128, 0), picture)
    for seed in (1, 2**40):
        assert np.abs(SAMPLES[name](96, 128, seed).astype(float) - picture).mean() > 10


@pytest.mark.parametrize("name", SAMPLES)
def test_another_size_gives_the_same_picture_finer(name):
    small, large = draw(name, 120, 160, 2), draw(name, 240, 320, 2)
    same, other = (shrink(small.astype(np.float32), 10), shrink(large.astype(np.float32), 20))
    assert correlation(same, other) > 0.9
    assert correlation(shrink(draw(name, 120, 160, 3).astype(np.float32), 10), other) < 0.9


@pytest.mark.parametrize("name", SAMPLES)
def test_a_picture_too_small_to_show_anything_is_refused(name):
    with pytest.raises(ValueError, match="cannot draw 200x63 pixels, each side needs at least 64"):
        SAMPLES[name](63, 200, 0)


@pytest.mark.parametrize("name", SAMPLES)
def test_no_part_is_left_empty_and_little_is_burnt_out(name):
    for seed in (0, 1, 2):
        picture = draw(name, 120, 160, seed)
        assert np.mean(picture.min(axis=2) == 255) < 0.03
        assert np.mean(picture.max(axis=2) == 0) < 0.02
        # Each third of the width and of the height holds something.
        for part in [*np.array_split(picture, 3, axis=0), *np.array_split(picture, 3, axis=1)]:
            assert part.std(axis=(0, 1)).max() > 12


# ---- what each is like ----


@pytest.mark.parametrize("seed", range(3))
def test_the_lake_mirrors_what_is_above_it(seed):
    picture = draw("landscape", 240, 320, seed).astype(np.float32)
    # The horizon is at about 116, the bank begins at about 200.
    above, below = picture[36:108], picture[124:196]
    mirrored = blur(below[::-1], 3)
    assert correlation(blur(above, 3), mirrored) > 0.35
    assert correlation(blur(above, 3), mirrored[:, ::-1]) < correlation(blur(above, 3), mirrored) - 0.1
    assert below.mean() < above.mean(), "some light goes down into the water"


@pytest.mark.parametrize("seed", range(3))
def test_the_landscape_has_detail_and_large_shapes(seed):
    picture = draw("landscape", 240, 320, seed).astype(np.float32)
    fine = np.abs(picture - blur(picture, 2)).mean(axis=(1, 2))
    assert fine[205:].mean() > 3 * fine[:40].mean(), "grass against sky"
    assert shrink(picture, 20).std() > 0.6 * picture.std()


def test_the_grain_is_finer_than_one_sees():
    sky = draw("landscape", 240, 320, 0)[:20].astype(np.float32)
    assert 0.3 < (sky - blur(sky, 1)).std() < 3


@pytest.mark.parametrize("seed", range(3))
def test_dots_lie_side_by_side_in_different_colours(seed):
    def variety(name):
        values = blocks(draw(name, 120, 160, seed).astype(np.float32), 6)
        opponents = np.stack([values[..., 0] - values[..., 1], values[..., 1] - values[..., 2]])
        return np.median(opponents.std(axis=2))

    assert variety("dots") > 3 * variety("landscape")
    assert variety("dots") > 2 * variety("shapes")


@pytest.mark.parametrize("color", [(0.35, 0.55, 0.75), (0.6, 0.6, 0.35), (0.3, 0.35, 0.55), (0.9, 0.8, 0.7)])
def test_dots_mix_to_the_colour_they_stand_for(color):
    picture = np.broadcast_to(np.array(color, np.float32), (120, 120, 3))
    painted = dotted(picture, 1.0, np.random.default_rng(0))
    np.testing.assert_allclose(painted[10:-10, 10:-10].mean(axis=(0, 1)), color, atol=0.06)
    assert painted.std(axis=(0, 1)).max() > 0.08, "but are not of that colour themselves"


def test_the_canvas_shows_between_the_dots():
    picture = np.broadcast_to(np.array((0.1, 0.2, 0.5), np.float32), (120, 120, 3))
    painted = dotted(picture, 1.0, np.random.default_rng(0))
    assert 0.005 < np.mean(painted[..., 0] > 0.8) < 0.2


@pytest.mark.parametrize("degrees", [0, 30, 75, 120])
def test_strokes_follow_the_flow(degrees):
    random = np.random.default_rng(degrees)
    picture = random.uniform(0, 1, (200, 200, 3)).astype(np.float32)
    angle = np.full((200, 200), np.radians(degrees), np.float32)
    canvas = Canvas(np.zeros((400, 400, 3), np.float32), np.zeros((400, 400), np.float32))
    painted = lit(paint(canvas, picture, angle, Brush(8, 40, 4), random))
    found, coherence = orientation(painted[30:-30, 30:-30])
    assert coherence > 0.4
    assert abs((np.degrees(found) - degrees + 90) % 180 - 90) < 5


def test_paint_leaves_its_arguments_alone_and_covers_the_canvas():
    picture = np.full((50, 60, 3), 0.5, np.float32)
    canvas = Canvas(np.zeros((50, 60, 3), np.float32), np.zeros((50, 60), np.float32))
    painted = paint(canvas, picture, np.zeros((50, 60), np.float32), Brush(6, 20, 5), np.random.default_rng(0))
    assert not canvas.colors.any()
    assert not canvas.relief.any()
    assert np.mean(painted.relief[5:-5, 5:-5] > 0) > 0.9
    nowhere = np.zeros((50, 60), np.float32)
    bare = paint(canvas, picture, nowhere, Brush(6, 20, 5), np.random.default_rng(0), where=nowhere)
    assert not bare.colors.any()


@pytest.mark.parametrize("seed", range(3))
def test_swirls_are_coherent_strokes_that_turn(seed):
    picture = draw("swirls", 240, 320, seed)
    angles, coherences = zip(*(orientation(b.reshape(20, 20, 3)) for b in blocks(picture, 20)), strict=True)
    assert np.median(coherences) > 0.45
    turns = np.exp(2j * np.array(angles))
    assert abs(turns.mean()) < 0.9, "not all in one direction"
    noise = np.random.default_rng(0).integers(0, 256, picture.shape)
    assert np.median([orientation(b.reshape(20, 20, 3))[1] for b in blocks(noise, 20)]) < 0.2


@pytest.mark.parametrize("seed", range(3))
def test_swirls_set_gold_against_blue(seed):
    picture = draw("swirls", 240, 320, seed).astype(float)
    blue = picture[..., 2] > picture[..., 0] + 40
    gold = picture[..., 0] > picture[..., 2] + 40
    assert blue.mean() > 0.3
    assert gold.mean() > 0.1


def flat(picture):
    """Return the share of a picture's squares of 6 pixels whose colour hardly changes."""
    return np.mean(np.ptp(blocks(picture.astype(int), 6), axis=1).max(axis=1) < 24)


@pytest.mark.parametrize("seed", range(5))
def test_shapes_are_flat_planes_in_black_outlines(seed):
    picture = draw("shapes", 240, 320, seed)
    assert flat(picture) > 0.35
    assert flat(draw("swirls", 240, 320, seed % 3)) < 0.02
    black = picture.max(axis=2) < 60
    assert 0.03 < black.mean() < 0.45


@pytest.mark.parametrize("seed", range(5))
def test_shapes_have_a_palette_of_few_colours(seed):
    picture = draw("shapes", 240, 320, seed)
    coarse = np.unique(picture.reshape(-1, 3) // 32, axis=0, return_counts=True)[1]
    assert np.sort(coarse)[::-1][:14].sum() > 0.75 * coarse.sum()


# ---- what they are drawn with ----


def test_noise_is_standardised_and_knows_nothing_of_pixels():
    y, x = grid(300, 400)
    noise = smooth_noise(np.random.default_rng(0), y * 40, x * 40)
    assert abs(noise.mean()) < 0.15
    assert noise.std() == pytest.approx(1, abs=0.05)
    coarse_y, coarse_x = grid(100, 133)
    coarse = smooth_noise(np.random.default_rng(0), coarse_y * 40, coarse_x * 40)
    np.testing.assert_allclose(coarse[:, :130], noise[1::3, 1::3][:, :130], atol=2e-3)


@pytest.mark.parametrize("ridged", [False, True])
def test_fractal_noise_is_rougher_with_more_octaves(ridged):
    y, x = grid(120, 160)
    rough = [
        np.abs(np.diff(fractal(np.random.default_rng(1), y * 3, x * 3, octaves, ridged=ridged), axis=1)).mean()
        for octaves in (1, 3, 6)
    ]
    assert rough[0] < rough[1] < rough[2]


def test_a_field_is_looked_up_between_its_pixels():
    y, x = np.indices((7, 9)).astype(np.float32)
    rows, columns = np.array([0.0, 1.25, 5.5]), np.array([0.5, 3.0, 6.75])
    np.testing.assert_allclose(look_up(3 * y - 2 * x, rows, columns), 3 * rows - 2 * columns, rtol=1e-5)
    np.testing.assert_allclose(look_up(x, np.array([-9.0, 99.0]), np.array([-9.0, 99.0])), [0, 8], atol=2e-3)


def test_blur_keeps_planes_and_sums():
    field = np.full((20, 30), 0.7, np.float32)
    np.testing.assert_allclose(blur(field, 3), field, rtol=1e-6)
    point = np.zeros((41, 41), np.float32)
    point[20, 20] = 1
    spread = blur(point, 4)
    assert spread.sum() == pytest.approx(1, rel=1e-5)
    y = np.arange(41) - 20
    assert np.sqrt((spread.sum(axis=1) * y**2).sum()) == pytest.approx(4.5, abs=0.6)


def test_bytes_are_rounded_and_clipped():
    np.testing.assert_array_equal(to_bytes(np.array([-1, 0, 0.5, 1, 2])), [0, 0, 128, 255, 255])


CAMERA = Camera(height=200, width=120, focal=200, horizon=90, eye=5)


def flat_land(heights, at):
    """Return land whose colour tells its distance."""
    colors = np.broadcast_to(np.log(at)[:, None, None], (*heights.shape, 3)).astype(np.float32)
    return Land(at, heights.astype(np.float32), colors)


@pytest.mark.parametrize("camera", [CAMERA, CAMERA.mirrored()])
def test_level_ground_is_seen_where_perspective_puts_it(camera):
    at = distances(20, 4000, 800)
    ground = 7.0  # metres above the water, and above the camera in the mirror
    picture = see(
        flat_land(np.repeat(ground / at[:, None], 120, axis=1), at), CAMERA, np.zeros((200, 120, 3), np.float32)
    )
    assert not picture.any(), "from below nothing of level ground is seen but its near edge"
    ground = 1.0
    picture = see(
        flat_land(np.repeat(ground / at[:, None], 120, axis=1), at), camera, np.zeros((200, 120, 3), np.float32)
    )
    if camera.eye < 0:
        assert not picture.any()
        return
    rows = np.arange(95, 125)
    expected = camera.focal * (camera.eye - ground) / (rows + 0.5 - camera.horizon)
    np.testing.assert_allclose(np.exp(picture[rows, 60, 0]), expected, rtol=0.01)
    assert not picture[:90].any()


def test_a_wall_hides_what_is_behind_and_its_foot_stands_in_the_water():
    at = distances(50, 1000, 400)
    heights = np.full((400, 120), UNDER_WATER)
    heights[100:110] = 30 / at[100:110, None]
    heights[200:210] = 20 / at[200:210, None]
    picture = see(flat_land(heights, at), CAMERA, np.zeros((200, 120, 3), np.float32))
    shown = picture[..., 0][:, 60]
    assert np.exp(shown.max()) < 1.01 * at[110], "the farther wall is hidden"
    top = 90 - 200 * (30 - 5) / at[100]
    foot = 90 + 200 * 5 / at[100]
    seen = np.flatnonzero(shown)
    assert abs(seen[0] - top) < 2
    assert seen[-1] < foot


def test_normals_of_a_slope():
    at, u = distances(100, 1000, 600), np.linspace(-0.5, 0.5, 200).astype(np.float32)
    # Y = 0.3 X + 0.2 Z + 4
    heights = 0.3 * u + 0.2 + 4 / at[:, None]
    length = np.sqrt(1 + 0.3**2 + 0.2**2)
    for found, expected in zip(normals(heights, at, u), (-0.3, 1, -0.2), strict=True):
        np.testing.assert_allclose(found[2:-2, 2:-2], expected / length, atol=2e-3)


def test_a_ridge_throws_its_shadow_away_from_the_sun():
    at, u = distances(1000, 2000, 80), np.linspace(-0.5, 0.5, 400).astype(np.float32)
    heights = np.broadcast_to(0.1 * np.exp(-((u / 0.02) ** 2)), (80, 400)).astype(np.float32)
    light = sunlit(heights, at, u, (-1.0, 0.5, 0.0), 0.5)  # the sun on the left
    assert light[40, np.abs(u - 0.08).argmin()] < 0.3
    assert light[40, np.abs(u + 0.08).argmin()] > 0.45
    assert light[40, 0] >= 0.5


# ---- the command line ----


def as_jpeg(pixels):
    """Return what a JPEG of the samples' quality makes of a picture."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=QUALITY, subsampling="4:4:4")
    return np.asarray(Image.open(file))


def test_it_writes_all_pictures_and_says_so(call, tmp_path):
    folder = tmp_path / "new" / "folder"
    lines = call("-o", folder, "--size", 96).splitlines()
    assert [line.split(": ")[0] for line in lines] == [str(folder / f"{name}.jpg") for name in SAMPLES]
    assert all(re.search(r": 96x72 pixels, \d+ kB$", line) for line in lines)
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{name}.jpg" for name in SAMPLES)
    for name in SAMPLES:
        pixels = load_image(folder / f"{name}.jpg").pixels
        np.testing.assert_array_equal(pixels, as_jpeg(SAMPLES[name](72, 96, 0)))


def test_it_writes_what_is_asked_for_with_the_seed_given(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call("shapes", "--seed", 5, "-s", 96, "--quiet") == ""
    assert [path.name for path in (tmp_path / "samples").iterdir()] == ["shapes.jpg"]
    pixels = load_image(tmp_path / "samples" / "shapes.jpg").pixels
    np.testing.assert_array_equal(pixels, as_jpeg(SAMPLES["shapes"](72, 96, 5)))


def test_a_picture_named_twice_is_drawn_once(call, tmp_path):
    assert len(call("shapes", "shapes", "-s", 96, "-o", tmp_path).splitlines()) == 1


def test_an_unknown_name_is_answered_with_the_nearest_before_anything_is_written(call, tmp_path):
    errors = call("shapes", "swirl", "-o", tmp_path / "new", code=2)
    assert "unknown sample 'swirl'; did you mean 'swirls'? choose from landscape, swirls, dots, shapes" in errors
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        ("0", "is not at least 1"),
        ("-5", "is not at least 1"),
        ("ten", "is not a whole number"),
        ("85", "is not from 86 to 2048"),
        ("1000000", "is not from 86 to 2048"),
    ],
)
def test_a_size_that_cannot_be_drawn_is_refused(call, tmp_path, size, reason):
    assert f"'{size}' {reason}" in call("-o", tmp_path / "new", f"--size={size}", code=2)
    assert not (tmp_path / "new").exists()


def test_the_smallest_size_is_drawn(call, tmp_path):
    call("-o", tmp_path, "--size", 86)
    assert len(list(tmp_path.iterdir())) == 4


def test_a_negative_seed_is_refused(call, tmp_path):
    assert "negative" in call("-o", tmp_path, "--seed=-1", code=2)


def test_a_folder_that_cannot_be_written_is_named_before_drawing(call, tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_text("")
    assert f"cannot write to '{file}'" in call("-o", file, code=2)
    assert f"cannot write to '{file / 'below'}'" in call("-o", file / "below", code=2)
    monkeypatch.setitem(SAMPLES, "landscape", lambda *_: pytest.fail("it has begun"))
    (tmp_path / "swirls.jpg").mkdir()
    assert "it is a directory" in call("-o", tmp_path, code=2)


def test_it_is_run_as_a_module(tmp_path):
    command = [sys.executable, "-m", "tools.samples", "shapes", "--size", "96", "-o", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert result.stdout.startswith(str(tmp_path / "shapes.jpg"))
    assert result.stderr == ""
