"""The page in a real browser: a picture is started, watched, steered, compared, stopped and made again."""

from __future__ import annotations

import http.server
import threading

import pytest

from tests.tools.studio.browser import Browser, browser
from tests.tools.studio.conftest import until
from tools.media.images import load_image

pytestmark = pytest.mark.slow


@pytest.fixture
def desk(page, tmp_path, folder):
    """A browser on the page, with a photograph and a painting chosen by hand."""
    with browser(tmp_path) as opened:
        opened.go(page.site.address)
        choose(opened, folder)
        yield opened
        assert not [line for line in opened.log() if "the server responded with a status of 40" not in line]


def choose(desk: Browser, folder) -> None:
    desk.until("return page.about && page.heard")
    desk.type("#drop-content input", str(folder / "photo.png"))
    desk.until("return page.chosen.content")
    desk.type("#drop-style input", str(folder / "painting.png"))
    desk.until("return page.chosen.style.length")
    desk.set("#size", 64)
    desk.set("#iterations", 100000)
    # This goes on and on, where L-BFGS has converged.
    desk.run("Object.assign(page.further, { optimizer: 'adam', change_tolerance: '0' })")
    desk.until("return document.querySelector('#estimate').textContent.includes('64 × 48 pixels')")


def started(desk: Browser) -> None:
    desk.click("#start")
    desk.until("return page.run && page.run.stage === 'picture' && page.run.shown")


def test_a_picture_is_started_watched_steered_paused_compared_stopped_and_made_again(desk, page):
    assert "of memory" in desk.text("#estimate")
    assert desk.run("return location.search") == ""  # the token is not left in the address
    started(desk)

    # Three pictures come, each another.
    seen = set()
    until(lambda: seen.add(desk.run("return document.querySelector('#under').dataset.address")) or len(seen) > 3)
    assert desk.run("return document.querySelector('#under').naturalWidth") == 64

    # A weight that is turned is heard: the content's share of the loss grows, and the loss jumps.
    desk.set("#content", 1.5)
    desk.until("return page.run.steered && page.run.marks.some((mark) => mark.kind === 'changed')")
    mark = desk.run("return page.run.marks.at(-1).step")
    desk.until("return page.points.length > arguments[0] + 2", mark)
    before, after = desk.run("return page.points.slice(arguments[0] - 1, arguments[0] + 1)", mark)
    assert after["loss"] > before["loss"]
    share = before["shares"]["content conv4_2"]
    desk.until("return page.points.at(-1).shares['content conv4_2'] > 2 * arguments[0]", share)
    assert desk.run("return document.querySelectorAll('#loss-chart .mark.changed').length") == 1
    assert desk.run("return document.querySelectorAll('#share-chart path').length") == 6

    desk.click("#pause")
    desk.until("return page.run.status === 'paused'")
    held = desk.run("return page.run.iteration")
    assert desk.text("#pause") == "Go on"
    assert desk.text("#status").startswith("Paused")

    # The wipe: the picture left of it, the photograph right of it; and what was there before the change.
    desk.set("#wipe", 50)
    box = desk.run("const box = document.querySelector('#easel').getBoundingClientRect(); return box.width")
    cut = desk.run("return parseFloat(document.querySelector('#easel').style.getPropertyValue('--cut'))")
    assert cut == pytest.approx(box / 2, abs=1)
    assert desk.run("return document.querySelector('#over').dataset.address").startswith("inputs/photo-")
    desk.set("#beside", "before")
    earlier = "return over.dataset.address.includes('before.jpg') && over.complete && over.naturalWidth === 64"
    desk.until(f"const over = document.querySelector('#over'); {earlier}")
    assert desk.run("return page.run.iteration") == held

    desk.click("#pause")
    desk.until("return page.run.status === 'running' && page.run.iteration > arguments[0]", held)
    desk.click("#stop")
    desk.until("return page.pictures.length === 1 && page.view.kind === 'picture'")
    assert desk.text("#details-title") == "Picture 1"
    assert desk.text("#command").startswith("python -m tools.stylize ")
    assert desk.shown("#command-note")

    desk.click("#pictures .small")
    desk.until("return page.run && page.run.number === 2 && page.run.shown")
    given = page.studio.shelf.pictures[0].form["options"]["content_weight"]
    assert page.studio.queue.current.order.options.content_weight == float(given)
    desk.click("#stop")
    desk.until("return page.pictures.length === 2")


def test_a_second_tab_and_a_reload_show_the_same_run(desk, page):
    started(desk)
    first = desk.do("GET", "/window")
    second = desk.do("POST", "/window/new", {"type": "tab"})["handle"]
    desk.do("POST", "/window", {"handle": second})
    desk.go(f"http://127.0.0.1:{page.site.port}/")  # the cookie is enough
    desk.until("return page.run && page.run.shown && page.points.length > 3")
    assert desk.run("return page.chosen.content").startswith("photo-")
    assert desk.run("return document.querySelector('#size').value") == "64"
    desk.set("#variation", 12)
    desk.until("return page.run.steered")

    # The first hears of it.
    desk.do("POST", "/window", {"handle": first})
    desk.until("return document.querySelector('#variation').value === '12'")
    desk.do("POST", "/refresh", {})
    desk.until("return page.run && page.run.shown && page.points.length > 3")
    assert desk.run("return document.querySelector('#variation').value") == "12"
    desk.click("#start")
    desk.until("return page.waiting.length === 1")
    assert desk.shown("#queue li")
    desk.click("#queue button")
    desk.until("return page.waiting.length === 0")

    # Without any page it goes on.
    run = page.studio.queue.current
    desk.go("about:blank")
    step = run.state.iteration
    until(lambda: run.state.iteration > step + 5)
    run.stop()
    until(lambda: page.studio.shelf.pictures)


def test_a_wrong_file_and_a_wrong_setting_are_told_on_the_page(desk, page, tmp_path):
    wrong = tmp_path / "wrong.png"
    wrong.write_bytes(b"no picture")
    chosen = desk.run("return page.chosen.content")
    desk.type("#drop-content input", str(wrong))
    desk.until("return !document.querySelector('#error').hidden")
    assert desk.text("#error span").startswith("cannot read 'wrong.png': ")
    assert desk.run("return page.chosen.content") == chosen
    desk.click("#error button")
    assert not desk.shown("#error")
    desk.set("#content-layers", "conv7_7")
    desk.click("#start")
    desk.until("return document.querySelector('#error span').textContent.startsWith(\"unknown layer 'conv7_7'\")")
    assert page.studio.queue.current is None


def test_a_mask_by_brush_is_in_the_picture(desk, page):
    desk.click("#open-masks")
    desk.until("return document.querySelector('#masks').open && board.layers.length === 1")
    desk.run("document.querySelector('#board canvas').focus()")
    desk.type("#board canvas", " \ue014\ue014 ")  # paint, twice to the right, paint
    desk.click("#mask-done")
    keep = desk.until("return page.chosen.keep")
    mask = load_image(page.studio.shelf.input_path(keep)).pixels
    assert mask.shape == (36, 48, 3)
    assert mask[18, 24].min() == 255
    assert mask[0, 0].max() == 0
    started(desk)
    assert page.studio.queue.current.order.keep == keep
    desk.click("#stop")
    desk.until("return page.pictures.length === 1")
    assert f"--keep {page.studio.shelf.input_path(keep)}" in desk.text("#command")


def test_a_mask_that_was_erased_is_none_and_each_painting_but_the_last_needs_a_place(desk, page, folder):
    canvas, done = "#board canvas", "#mask-done"
    desk.click("#open-masks")
    desk.until("return document.querySelector('#masks').open && board.layers.length === 1")
    desk.run("document.querySelector('#board canvas').focus()")
    desk.type(canvas, " ")
    desk.click("#mask-clear")
    desk.click(done)
    desk.until("return !document.querySelector('#masks').open")
    assert desk.run("return page.chosen.keep") is None
    for _ in range(2):
        desk.type("#drop-style input", str(folder / "other.png"))
    desk.until("return page.chosen.style.length === 3")
    desk.click("#open-masks")
    desk.until("return document.querySelector('#masks').open && board.layers.length === 3")
    desk.run("document.querySelector('#mask-which').value = '0'")
    desk.run("document.querySelector('#mask-which').dispatchEvent(new Event('change'))")
    desk.run("document.querySelector('#board canvas').focus()")
    desk.type(canvas, " ")
    desk.click(done)
    assert desk.text("#mask-note") == "Painting 2 has no place yet."
    assert desk.run("return document.querySelector('#masks').open")


def test_from_a_picture_of_the_strip_there_is_a_way_back_to_the_one_in_hand(desk, page):
    started(desk)
    desk.click("#stop")
    desk.until("return page.pictures.length === 1 && !page.run")
    desk.click("#start")
    desk.until("return page.run && page.run.shown")
    desk.click("#pictures .open")
    desk.until("return page.view.kind === 'picture'")
    assert not desk.shown("#pause")
    desk.click("#in-hand")
    desk.until("return page.view.kind === 'run'")
    assert desk.shown("#pause")
    assert not desk.run("return document.querySelector('#in-hand')")
    desk.click("#stop")
    desk.until("return page.pictures.length === 2")


def test_what_is_composed_for_the_next_picture_leaves_the_one_in_hand_alone(desk, page, folder):
    started(desk)
    desk.type("#drop-content input", str(folder / "other.png"))
    desk.until("return page.chosen.content.startsWith('other-')")
    desk.set("#variation", 12)
    run = page.studio.queue.current
    step = run.state.iteration
    until(lambda: run.state.iteration > step + 5)
    assert not run.steered
    assert desk.run("return page.chosen.content").startswith("other-")
    # The note follows with the next news of the run.
    desk.until("return document.querySelector('#live-note').textContent === 'also while it is made'")
    desk.click("#start")
    desk.until("return page.waiting.length === 1")
    assert page.studio.queue.waiting[0].order.content.startswith("other-")
    desk.click("#stop")
    desk.until("return page.run && page.run.number === 2 && page.run.shown")
    desk.click("#stop")
    desk.until("return page.pictures.length === 2")


def test_a_content_weight_outlasts_a_reload_and_counts_at_once(desk, page):
    desk.set("#content", 0.5)
    wanted = desk.run("return formNow().options.content_weight")
    desk.do("POST", "/refresh", {})
    desk.until("return page.about && page.chosen.content")
    assert desk.run("return formNow().options.content_weight") == wanted
    desk.until("return page.recommended && page.wanted === 0")
    assert desk.run("return Number(document.querySelector('#content').value)") == 0.5
    assert desk.run("return formNow().options.content_weight") == wanted


class Foreign(http.server.BaseHTTPRequestHandler):
    """Another page on this machine: to a cookie, which knows no ports, it is the same site."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<title>foreign</title><link rel=icon href='data:,'>")

    def log_message(self, format, *arguments):
        pass


def test_another_site_s_page_can_do_nothing(page, tmp_path, folder):
    server = http.server.HTTPServer(("127.0.0.1", 0), Foreign)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    studio = f"http://127.0.0.1:{page.site.port}"
    try:
        with browser(tmp_path) as desk:
            desk.go(page.site.address)
            choose(desk, folder)
            started(desk)
            run = page.studio.queue.current
            desk.go(f"http://127.0.0.1:{server.server_port}/")
            check, heard = page.site._check, []

            def watched():
                headers = page.site._bottle.request
                heard.append((headers.path, headers.get_header("Origin"), headers.get_cookie(page.site._cookie)))
                check()

            page.site._check = watched
            send = "return fetch(arguments[0], {method: 'POST', mode: 'no-cors', credentials: 'include', body: '{}'})"
            send += ".then(() => 'read', () => 'refused')"
            for path in (f"/run/{run.number}/stop", f"/run/{run.number}/pause", "/runs"):
                assert desk.run(send, studio + path) == "refused"
                # Cookie and all: it was the origin that gave it away.
                assert heard.pop() == (path, f"http://127.0.0.1:{server.server_port}", "the-token")
            read = "return fetch(arguments[0], {credentials: 'include'}).then(() => 'read', () => 'refused')"
            assert desk.run(read, f"{studio}/about") == "refused"
            step = run.state.iteration
            until(lambda: run.state.iteration > step + 3)
            assert page.studio.queue.current is run
            assert page.studio.queue.waiting == []
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


UNLABELED = """
return [...document.querySelectorAll('button, input, select, a, summary, canvas, img:not([alt])')]
  .filter((it) => it.matches('img') || !(it.textContent.trim() || it.labels?.length
    || it.getAttribute('aria-label') || it.getAttribute('aria-labelledby')))
  .map((it) => it.outerHTML)"""

# Text that is too faint by the WCAG's contrast with what is behind it.
FAINT = """
const light = (color) => color.match(/[\\d.]+/g).slice(0, 3).map((part) => part / 255)
  .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
  .reduce((sum, part, place) => sum + part * [0.2126, 0.7152, 0.0722][place], 0);
const behind = (it) => {
  const color = getComputedStyle(it).backgroundColor;
  return color.startsWith('rgba(0, 0, 0, 0') ? behind(it.parentElement) : color;
};
return [...document.querySelectorAll('p, h1, h2, label, button, output, dt, dd, code, summary, li')]
  .filter((it) => it.checkVisibility() && it.textContent.trim() && !it.disabled)
  .map((it) => [light(getComputedStyle(it).color), light(behind(it)), it.outerHTML.slice(0, 80)])
  .map(([one, other, html]) => [(Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05), html])
  .filter(([ratio]) => ratio < 4.5)"""

# Too low for a finger.
LOW = """
return [...document.querySelectorAll('main button, main select')]
  .filter((it) => it.checkVisibility() && it.offsetHeight < 30).map((it) => it.outerHTML)"""


@pytest.mark.parametrize(("width", "dark"), [(390, False), (390, True), (1280, True)])
def test_everything_fits_is_labeled_and_can_be_read(page, tmp_path, folder, width, dark):
    with browser(tmp_path, width, 844, dark) as desk:
        desk.go(page.site.address)
        choose(desk, folder)
        started(desk)
        desk.run("document.querySelector('details').open = true")
        assert desk.run("return document.documentElement.scrollWidth") <= width
        assert desk.run(UNLABELED) == []
        assert desk.run(FAINT) == []
        if width == 390:
            assert desk.run(LOW) == []
        desk.click("#stop")
        desk.until("return page.pictures.length === 1")


def test_the_page_is_reached_by_the_keyboard(desk):
    """Tab goes to every control that is shown, and Enter starts."""
    desk.run("document.body.focus()")
    reached = set()
    for _ in range(40):
        desk.do(
            "POST",
            "/actions",
            {
                "actions": [
                    {
                        "type": "key",
                        "id": "keys",
                        "actions": [{"type": "keyDown", "value": "\ue004"}, {"type": "keyUp", "value": "\ue004"}],
                    }
                ]
            },
        )
        reached.add(
            desk.run("const it = document.activeElement; return it.id || it.className || it.closest('[id]')?.id")
        )
    assert {
        "drop-content",
        "drop-style",
        "open-masks",
        "size",
        "iterations",
        "model",
        "init",
        "content",
        "style-size",
        "variation",
        "colors",
        "start",
        "beside",
    } <= reached
    desk.run("document.querySelector('#start').focus()")
    desk.type("#start", "\ue007")
    desk.until("return page.run && page.run.shown && !document.querySelector('#wipe').hidden")
    desk.run("document.querySelector('#wipe').focus()")
    desk.type("#wipe", "\ue012\ue012")
    assert desk.run("return Number(document.querySelector('#wipe').value)") == 99
    desk.click("#stop")
    desk.until("return page.pictures.length === 1")


def test_of_two_changes_the_latter_counts_whichever_is_longer_on_its_way(desk, page):
    started(desk)
    desk.run("""
        const send = window.fetch;
        let delay = 700;
        window.fetch = async (path, ...more) => {
          if (String(path).includes("/change")) {
            const ahead = delay;
            delay = 0;
            await new Promise((go) => setTimeout(go, ahead));
          }
          return send(path, ...more);
        };
    """)
    desk.set("#variation", "8")
    desk.set("#colors", "photograph")
    desk.until("return page.sending === 0")
    options = page.studio.queue.current.order.options
    assert (options.colors, options.variation_weight) == ("photograph", 1)


def test_every_knob_is_heard_while_a_picture_is_made_and_shown_after_a_reload(desk, page):
    started(desk)
    turned = {
        "#content": "-0.5",
        "#style-size": "1",
        "#variation": "8",
        "#colors": "photograph",
        "#layer-conv3_1": "3",
        "#content-layers": "conv2_2:1.0",
    }
    for selector, value in turned.items():
        desk.set(selector, value)
    expected = {"style_size": "128", "variation_weight": "1.0", "colors": "photograph", "content_layers": "conv2_2:1.0"}
    desk.until(
        "return Object.entries(arguments[0]).every(([name, value]) => page.run.form.options[name] === value)", expected
    )
    options = page.studio.queue.current.order.options
    assert options.style_layers["conv3_1"] == pytest.approx(3 * options.style_layers["conv1_1"])
    usual = desk.run("return page.recommended")
    assert options.content_weight == pytest.approx(usual * 10**-0.5, rel=1e-3)
    desk.until("return page.points.at(-1).shares['content conv2_2'] !== undefined")
    desk.do("POST", "/refresh", {})
    desk.until(
        "return page.run && page.run.shown && page.recommended && Number(document.querySelector('#content').value)"
    )
    for selector, value in turned.items():
        assert desk.run("return document.querySelector(arguments[0]).value", selector) == value, selector
    desk.set("#larger", "2")
    desk.until("return page.pictures.length === 1 && page.run && page.run.number === 2 && page.run.shown")
    assert page.studio.queue.current.order.options.size == 128
    desk.click("#stop")
    desk.until("return page.pictures.length === 2")
