"""The page of a sweep: everything is in it and nothing else is needed, whatever the names; in a browser it works."""

from __future__ import annotations

import base64
import dataclasses
import html
import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tools.media.grid import Grid, Record
from tools.media.saving import save_image
from tools.sweep import page as module
from tools.sweep.page import sweep_page

HOSTILE = "</script><script>alert(1)</script><!-- <b title=\"x\" onload='y'> & ]]> \u2028 雪 \udcff"
SETTINGS = {
    "content_layers": ["conv4_2"],
    "style_layers": {"conv1_1": 0.5, "conv2_1": 0.5},
    "content_weight": None,
    "optimizer": "adam",
    "seed": 0,
    "files": {"model": "a" * 64, "content": "b" * 64},
}


def facts(scale: float = 1.0, iterations: int = 5, **changes) -> dict:
    start = {"content": {"conv4_2": 0.0}, "style": {"conv1_1": 70.0 * scale, "conv2_1": 20.0 * scale}}
    shares = {"content": {"conv4_2": 0.25}, "style": {"conv1_1": 0.5, "conv2_1": 0.25}}
    curve = [
        [2 * index + 1, *(scale * part / (index + 1) for part in (90.0, 0.0, 70.0, 20.0))]
        for index in range(iterations)
    ]
    return {
        "loss": 12345.678 * scale,
        "initial_loss": 9e7 * scale,
        "content_weight": 1e-3,
        "iterations": iterations,
        "evaluations": 2 * iterations,
        "stop": "iterations",
        "stop_reason": f"reached {iterations} iterations",
        "start": {"terms": start, "loss_shares": shares, "gradient_shares": shares},
        "end": {"terms": start, "loss_shares": shares, "gradient_shares": shares},
        "terms": ["content conv4_2", "style conv1_1", "style conv2_1"],
        "curve": curve,
        "seconds": 1.25,
    } | changes


@pytest.fixture
def pictures(tmp_path) -> dict[tuple[int, int], Path]:
    """The pictures of a grid of 2 x 3 cells, each different, of two sizes."""
    random = np.random.default_rng(0)
    paths = {(row, column): tmp_path / f"cell-{row}-{column}.png" for row in range(2) for column in range(3)}
    for (row, _), path in paths.items():
        save_image(path, random.integers(0, 256, (30 + 10 * row, 40, 3), dtype=np.uint8), None, {"Settings": "{}"})
    return paths


@pytest.fixture
def grid(pictures) -> Grid:
    """A grid with everything that can happen: made, failed, become infinite, not made yet."""
    records = {
        (row, column): Record(pictures[row, column], facts(1 + row + column), SETTINGS | {"seed": column}, None)
        for row in range(2)
        for column in range(3)
    }
    records[1, 1] = Record(None, {"seconds": 0.5}, SETTINGS | {"seed": 1}, "the <layer> is wrong")
    broken = facts(loss=math.inf, end=None, stop="non-finite", stop_reason="the loss became infinite")
    broken["curve"].append([11, math.inf, math.nan, 1.0, 1.0])
    records[1, 0] = Record(pictures[1, 0], broken, SETTINGS, None)
    del records[1, 2]
    # As they come from several workers.
    records = dict(reversed(records.items()))
    return Grid("A sweep", "optimizer", "seed", ("adam", "sgd"), ("0", "1", "2"), records)


class Page(HTMLParser):
    """What a browser makes of a page, roughly: elements with their attributes, and the text in each cell."""

    VOID = frozenset({"meta", "img", "input", "br", "rect", "line", "path"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.cells: dict[str, str] = {}
        self.scripts: list[str] = []
        self.text = ""
        self.heads: list[str] = []
        self._open: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        assert len({name for name, _ in attributes}) == len(attributes)
        self.elements.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self._open.append((tag, dict(attributes)))
        if tag == "td" and "id" in dict(attributes):
            self.cells[dict(attributes)["id"]] = ""
        if tag == "th":
            self.heads.append("")

    def handle_endtag(self, tag):
        assert self._open.pop()[0] == tag

    def handle_data(self, data):
        tags = [tag for tag, _ in self._open]
        if "script" in tags:
            self.scripts.append(data)
        elif "style" not in tags:
            self.text += data
        if "th" in tags:
            self.heads[-1] += data
        for tag, attributes in self._open:
            if tag == "td" and "id" in attributes:
                self.cells[attributes["id"]] += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def data(self):
        return json.loads(self.scripts[0])


def embedded(page: Page) -> list[tuple[str, bytes]]:
    """Return kind and bytes of each picture in the grid, in the order of the page."""
    sources = [attributes["src"] for attributes in page.named("img") if "src" in attributes]
    found = [re.fullmatch(r"data:image/(\w+);base64,([\w+/=]+)", source) for source in sources]
    return [(match[1], base64.b64decode(match[2], validate=True)) for match in found]


# ---- what is on the page ----


def test_every_cell_is_on_the_page_with_its_picture_as_it_is(grid, pictures):
    page = Page(sweep_page(grid))
    assert list(page.cells) == [f"cell-{row}-{column}" for row in range(2) for column in range(3)]
    made = [(0, 0), (0, 1), (0, 2), (1, 0)]
    assert embedded(page) == [("png", pictures[place].read_bytes()) for place in made]
    assert page.cells["cell-0-1"] == "loss 24690, content 25 %, 5 iterations"
    assert page.cells["cell-1-0"] == "no finite loss, 5 iterationsthe loss became infinite"
    assert page.cells["cell-1-1"] == "failed: the <layer> is wrong"
    assert page.cells["cell-1-2"] == "not made yet"
    assert "4 of 6 pictures made, 1 failed, 1 not made yet" in page.text


def test_rows_columns_and_pictures_have_names(grid):
    page = Page(sweep_page(grid))
    assert page.heads[:5] == ["seed 0", "seed 1", "seed 2", "optimizer adam", "optimizer sgd"]
    names = [attributes["alt"] for attributes in page.named("img") if "src" in attributes]
    assert names == [
        "optimizer adam, seed 0",
        "optimizer adam, seed 1",
        "optimizer adam, seed 2",
        "optimizer sgd, seed 0",
    ]
    assert [attributes["scope"] for attributes in page.named("th")[:5]] == ["col"] * 3 + ["row"] * 2
    for attributes in page.named("button"):
        assert attributes["type"] == "button"
    assert {attributes["role"] for attributes in page.named("svg")} == {"img"}


def test_the_data_are_the_facts(grid):
    data = Page(sweep_page(grid)).data
    assert (data["rows"], data["columns"]) == (["adam", "sgd"], ["0", "1", "2"])
    assert [(cell["row"], cell["column"]) for cell in data["cells"]] == sorted(grid.records)
    for cell in data["cells"]:
        record = grid.records[cell["row"], cell["column"]]
        assert cell["failed"] == record.failed
        assert cell["iterations"] is None
        assert cell["file"] == (record.picture.name if record.picture else None)
        if (cell["row"], cell["column"]) != (1, 0):
            assert cell["facts"] == record.facts
    broken = next(cell["facts"] for cell in data["cells"] if (cell["row"], cell["column"]) == (1, 0))
    assert (broken["loss"], broken["end"]) == (None, None)
    assert broken["curve"][-1] == [11, None, None, 1.0, 1.0]


def test_settings_that_differ_are_told_apart_from_those_that_all_cells_share(grid):
    data = Page(sweep_page(grid)).data
    common = dict(data["common"])
    assert common["optimizer"] == "adam"
    assert common["style layers"] == "conv1_1 0.5, conv2_1 0.5"
    assert common["SHA-256 of content"] == "b" * 64
    assert "seed" not in common
    assert dict(data["cells"][1]["differing"])["seed"] == "1"


def test_the_content_weight_that_a_model_recommends_stands_in_for_none():
    records = {(0, index): Record(None, facts(content_weight=10.0**-index), SETTINGS, None) for index in range(2)}
    data = Page(sweep_page(Grid("", "", "model", ("",), ("a", "b"), records))).data
    assert [dict(cell["differing"])["content weight"] for cell in data["cells"]] == ["1", "0.1"]


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 4), (4, 1), (12, 12)])
def test_grids_of_any_shape(pictures, rows, columns):
    records = {
        (row, column): Record(pictures[0, 0], facts(), SETTINGS, None)
        for row in range(rows)
        for column in range(columns)
    }
    labels = [tuple(map(str, range(count))) if count > 1 else ("",) for count in (rows, columns)]
    names = ["seed" if rows > 1 else "", "size" if columns > 1 else ""]
    page = Page(sweep_page(Grid("A sweep", *names, *labels, records)))
    assert len(page.cells) == rows * columns
    assert len(embedded(page)) == rows * columns
    if rows == columns == 1:
        assert next(attributes["alt"] for attributes in page.named("img")) == "A sweep"


def test_a_sweep_that_has_just_begun(grid):
    page = Page(sweep_page(dataclasses.replace(grid, records={})))
    assert set(page.cells.values()) == {"not made yet"}
    assert page.data["cells"] == []


# ---- one file, safe and always the same ----


def test_names_cannot_become_markup(grid, tmp_path):
    path = tmp_path / "a<b>&'\".png"
    shutil.copy(grid.records[0, 0].picture, path)
    texts = {"row_name": HOSTILE, "column_name": HOSTILE, "rows": (HOSTILE, HOSTILE), "columns": (HOSTILE,) * 3}
    records = {
        (0, 0): Record(path, facts(stop="stalled", stop_reason=HOSTILE), {HOSTILE: HOSTILE, "x": [HOSTILE]}, None),
        (0, 1): Record(path, facts(terms=[HOSTILE] * 3), {HOSTILE: {HOSTILE: HOSTILE}, "x": [HOSTILE]}, None),
        (1, 1): Record(None, {"seconds": 1.0}, {HOSTILE: "other", "x": [HOSTILE]}, HOSTILE),
    }
    plain = Page(sweep_page(dataclasses.replace(grid, records=records)))
    text = sweep_page(Grid(HOSTILE, records=records, **texts))
    text.encode("utf-8")
    page = Page(text)
    # The same elements, and no attributes that were not there before.
    shapes = [[(tag, sorted(attributes)) for tag, attributes in one.elements] for one in (page, plain)]
    assert shapes[0] == shapes[1]
    assert "<!--" not in text
    assert page.data["title"] == HOSTILE
    assert page.data["cells"][0]["facts"]["stop_reason"] == HOSTILE
    assert page.data["cells"][0]["file"] == path.name
    shown = HOSTILE.encode("utf-8", "backslashreplace").decode()
    assert page.cells["cell-1-1"] == f"failed: {shown}"
    assert page.cells["cell-0-0"].endswith(shown)


def test_nothing_else_is_asked_for(grid):
    text = sweep_page(grid)
    assert not re.search(r"https?:|//\w+\.|@import|url\((?!#)", text)
    page = Page(text)
    for _, attributes in page.elements:
        assert not {"href", "srcset", "action", "data", "poster"} & set(attributes)
        assert (attributes.get("src") or "data:").startswith("data:")
    policy = next(meta["content"] for meta in page.named("meta") if "http-equiv" in meta)
    assert "default-src 'none'" in policy
    assert {attributes.get("type") for attributes in page.named("script")} == {"application/json", None}


def test_the_same_cells_give_the_same_page(grid):
    again = dataclasses.replace(grid, records=dict(reversed(grid.records.items())))
    assert sweep_page(grid) == sweep_page(again)


# ---- much of everything ----


def test_large_pictures_are_reduced_and_that_is_said(grid, monkeypatch):
    total = sum(record.picture.stat().st_size for record in grid.records.values() if record.picture)
    monkeypatch.setattr(module, "MOST_BYTES", total)
    assert "reduced" not in Page(sweep_page(grid)).text
    monkeypatch.setattr(module, "MOST_BYTES", total - 1)
    page = Page(sweep_page(grid))
    sides = set()
    for kind, content in embedded(page):
        assert kind == "jpeg"
        with Image.open(BytesIO(content)) as picture:
            assert picture.format == "JPEG"
            sides.add(max(picture.size))
    (side,) = sides
    assert side <= 40
    assert re.search(r"reduced to at most \d+ pixels", page.text)


def test_of_very_many_losses_the_extremes_are_kept(grid, monkeypatch):
    curve = [[index, 1.0 + (index == 777), 0.0, 0.5, 0.5] for index in range(1000)]
    curve[333][1] = 0.25
    curve[555][1] = math.inf
    record = dataclasses.replace(grid.records[0, 0], facts=facts(curve=curve))
    monkeypatch.setattr(module, "MOST_NUMBERS", 500)
    page = Page(sweep_page(dataclasses.replace(grid, records={(0, 0): record})))
    (cell,) = page.data["cells"]
    assert 50 <= len(cell["iterations"]) <= 110
    assert {1, 334, 556, 778, 1000} <= set(cell["iterations"])
    assert cell["iterations"] == sorted(cell["iterations"])
    losses = [None if math.isinf(curve[number - 1][1]) else curve[number - 1][1] for number in cell["iterations"]]
    assert [point[1] for point in cell["facts"]["curve"]] == losses
    assert "lowest and highest are kept" in page.text


@pytest.mark.parametrize("limit", [module.MOST_BYTES, 1])
def test_a_picture_that_is_gone_is_named(grid, monkeypatch, limit):
    monkeypatch.setattr(module, "MOST_BYTES", limit)
    grid.records[0, 1].picture.unlink()
    with pytest.raises(ValueError, match=r"cannot read '.*cell-0-1\.png'"):
        sweep_page(grid)


# ---- in a browser ----

ACTIONS = """
const told = {errors: []};
const press = (key, more) =>
  stage.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true, cancelable: true, ...more}));
const pointer = (type, x, y) =>
  stage.dispatchEvent(new PointerEvent(type, {pointerId: 1, clientX: x, clientY: y, bubbles: true}));
const wait = () => new Promise((done) => setTimeout(done, 100));
stage.setPointerCapture = () => {};
const where = () => [byId("which").textContent, viewer.open, image.hidden, image.naturalHeight];
const run = async () => {
  told.overview = [...document.querySelectorAll("#overview .line")].filter((line) => line.closest("g")).length;
  document.querySelector("#cell-0-1 button").click();
  await wait();
  told.opened = where();
  told.facts = byId("side").textContent;
  told.lines = document.querySelectorAll("#curves g .line").length;
  told.label = byId("curves-chart").getAttribute("aria-label");
  const box = stage.getBoundingClientRect();
  const under = (x, y) => {
    const spot = image.getBoundingClientRect();
    return [(x - spot.left) / spot.width, (y - spot.top) / spot.height];
  };
  const [x, y] = [box.left + 0.4 * box.width, box.top + 0.6 * box.height];
  told.before = [image.getBoundingClientRect().width, ...under(x, y)];
  stage.dispatchEvent(new WheelEvent("wheel", {deltaY: -500, clientX: x, clientY: y, cancelable: true}));
  told.zoomed = [image.getBoundingClientRect().width, ...under(x, y)];
  pointer("pointerdown", x, y);
  pointer("pointermove", x + 30, y - 20);
  told.dragged = under(x + 30, y - 20);
  pointer("pointerup", x + 30, y - 20);
  const held = [view.zoom, view.x, view.y];
  press("ArrowLeft");
  await wait();
  told.left = where();
  told.kept = held.every((value, index) => value === [view.zoom, view.x, view.y][index]);
  press("ArrowLeft");
  told.edge = where()[0];
  press("ArrowDown");
  await wait();
  told.down = where();
  press("0");
  told.fit = [view.zoom, view.x, view.y];
  press("ArrowRight");
  told.failed = [where(), stage.textContent, byId("curves").hidden];
  press("ArrowRight");
  told.missing = [where(), stage.textContent];
  press("ArrowUp");
  viewer.close();
  viewer.onclose();  // the event itself waits for a frame, and nothing is drawn here
  told.focus = document.activeElement.closest("td")?.id;
  byId("over").value = "evaluations";
  byId("over").onchange();
  told.over = byId("overview-chart").textContent;
  byId("color-by").value = "column";
  byId("color-by").onchange();
  told.legend = byId("overview").querySelector(".legend").textContent;
};
window.addEventListener("error", (event) => told.errors.push(event.message));
run().catch((error) => told.errors.push(String(error))).finally(() => {
  const result = document.createElement("pre");
  result.id = "told";
  result.textContent = JSON.stringify(told);
  document.body.append(result);
});
"""


def test_in_a_browser_pictures_open_zoom_and_lead_to_their_neighbors(grid, tmp_path):
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("needs Chromium or Chrome")
    path = tmp_path / "page.html"
    path.write_text(sweep_page(grid).replace("</body>", f"<script>{ACTIONS}</script></body>"), encoding="utf-8")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
               "--window-size=1200,800", "--virtual-time-budget=5000", "--dump-dom", path.as_uri()]  # fmt: skip
    try:
        output = subprocess.run(command, capture_output=True, timeout=120, check=False).stdout.decode()
    except subprocess.TimeoutExpired:
        pytest.skip("the browser does not answer")
    if "</html>" not in output:
        pytest.skip("the browser does not start")
    found = re.search(r'<pre id="told">(.*?)</pre>', output, re.DOTALL)
    assert found, "the page's script broke off"
    told = json.loads(html.unescape(found[1]))
    assert told["errors"] == []
    assert told["overview"] == 4
    assert told["opened"] == ["optimizer adam, seed 1", True, False, 30]
    for text in ("seed1", "→ 24690", "5, 10", "reached 5 iterations", "cell-0-1.png", "style conv2_1", "50 %"):
        assert text in told["facts"]
    assert told["lines"] == 4
    assert told["label"] == "Loss and terms of optimizer adam, seed 1 over 5 iterations, log scale: from 180 to 36"
    # The detail below the pointer stays below it, while zooming and while dragging.
    assert told["zoomed"][0] == pytest.approx(math.e * told["before"][0], rel=1e-3)
    assert told["zoomed"][1:] == pytest.approx(told["before"][1:], abs=2e-3)
    assert told["dragged"] == pytest.approx(told["before"][1:], abs=2e-3)
    assert told["left"] == ["optimizer adam, seed 0", True, False, 30]
    assert told["kept"]
    assert told["edge"] == "optimizer adam, seed 0"
    assert told["down"] == ["optimizer sgd, seed 0", True, False, 40]
    assert told["fit"] == [1, 0.5, 0.5]
    assert told["failed"][0][:3] == ["optimizer sgd, seed 1", True, True]
    assert told["failed"][1:] == ["failed: the <layer> is wrong", True]
    assert told["missing"] == [["optimizer sgd, seed 2", True, True, 0], "not made yet"]
    assert told["focus"] == "cell-0-2"
    assert "evaluation" in told["over"]
    assert "seed 2" in told["legend"]
