"""The page's server: who may ask, what is refused in one line, and what the page is told."""

from __future__ import annotations

import http.client
import json
import re

import pytest

from tests.tools.studio.conftest import until
from tools.media.images import load_image
from tools.studio import server as module


def test_the_page_comes_with_the_token_and_leaves_a_cookie_that_no_script_reads(page):
    status, text, headers = page.ask("GET", "/?token=the-token", Cookie=None)
    assert status == 200
    assert b"<title>Studio</title>" in text
    cookie = headers["Set-Cookie"]
    assert cookie.startswith(f"studio-{page.site.port}=the-token;")
    assert {"HttpOnly", "SameSite=strict"} <= set(cookie.split("; "))
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    for name, kind in (("page.css", "text/css; charset=utf-8"), ("page.js", "text/javascript")):
        status, text, headers = page.ask("GET", f"/{name}")
        assert (status, headers["Content-Type"]) == (200, kind)
        # Nothing outside is asked for.
        assert not re.search(rb"(?:src|href|url|import|fetch)\W{0,3}(?:https?:)?//", text)


@pytest.mark.parametrize("path", ["/", "/page.js", "/about", "/events", "/inputs/photo.png", "/pictures/1.png"])
def test_without_the_token_there_is_nothing_to_see(page, path):
    for cookie in (None, f"studio-{page.site.port}=another", "studio=the-token"):
        status, told, _ = page.ask("GET", path, Cookie=cookie)
        assert status == 403
        assert told == {"error": "the token is missing: open the address that the studio has printed"}
    assert page.ask("GET", "/?token=wrong", Cookie=None)[0] == 403


def test_other_programs_cookies_do_not_hide_the_studio_s(page):
    """A cookie knows no ports: what any program on this machine has left is sent along, and need not be well-formed."""
    own = f"studio-{page.site.port}=the-token"
    for cookie in (f'prefs={{"a":1}}; {own}', f"a=b c; {own}; x", f'{own}; studio=other; "'):
        assert page.ask("GET", "/about", Cookie=cookie)[0] == 200


def test_a_mask_that_has_gone_is_told_and_leaves_the_page_as_it_is(page, folder):
    studio = page.studio
    mask = studio.shelf.bring_in("keep.png", (folder / "photo.png").read_bytes())
    first = page.post("/runs", studio.form() | {"keep": mask})["number"]
    until(lambda: [made for made in studio.shelf.pictures if made.number] and studio.queue.current is None)
    made = studio.shelf.pictures[0].number
    studio.shelf.input_path(mask).unlink()
    studio.shelf._sizes.pop(mask)
    assert first
    assert "keep" in page.refusal(f"/pictures/{made}/larger", {"size": 96})
    assert studio.queue.waiting == []
    # Brought in again it is there again.
    assert studio.shelf.bring_in("keep.png", (folder / "photo.png").read_bytes()) == mask
    assert studio.shelf.input_path(mask).is_file()


def test_a_photograph_that_has_gone_can_be_brought_in_again(page, folder):
    shelf, content = page.studio.shelf, (folder / "photo.png").read_bytes()
    shelf.input_path(page.studio.photo).unlink()
    assert page.ask("POST", "/inputs", content, X_Name="photo.png")[1]["name"] == page.studio.photo
    assert shelf.input_path(page.studio.photo).is_file()


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1", "http://127.0.0.1:1", None])
def test_what_another_site_sends_is_refused(page, origin):
    form = page.studio.form()
    status, told, _ = page.ask("POST", "/runs", form, Origin=origin)
    assert (status, told) == (403, {"error": "this comes from another site's page"})
    assert page.ask("POST", "/inputs", b"x", Origin=origin)[0] == 403
    assert page.studio.queue.current is None
    if origin is not None:
        assert page.ask("GET", "/about", Origin=origin)[0] == 403


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", None])
def test_a_name_that_was_bound_to_this_machine_is_refused(page, host):
    assert page.ask("GET", "/about", Host=host)[0] == 403
    assert page.ask("GET", "/?token=the-token", Host=host)[0] == 403


def test_only_this_machine_is_served(page):
    assert page.server.server_address[0] == "127.0.0.1"


def test_a_picture_is_brought_in_shown_and_used(page, folder):
    content = (folder / "photo.png").read_bytes()
    status, told, _ = page.ask("POST", "/inputs", content, X_Name="My%20ph%C3%B6to%20%E9%9B%AA.PNG")
    assert status == 200
    assert (told["width"], told["height"]) == (48, 36)
    assert re.fullmatch(r"My-photo-[0-9a-f]{10}\.png", told["name"])
    assert page.studio.shelf.input_path(told["name"]).read_bytes() == content
    status, shown, headers = page.ask("GET", f"/inputs/{told['name']}")
    assert (status, headers["Content-Type"], shown[:2]) == (200, "image/jpeg", b"\xff\xd8")


def wrong_files(folder):
    photo = (folder / "photo.png").read_bytes()
    return {
        "notes.txt": (b"not a picture", "cannot read 'notes.txt': it is not a"),
        "empty.png": (b"", "'empty.png' is empty"),
        "half.png": (photo[: len(photo) // 2], "cannot read 'half.png': damaged"),
        "page.svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "cannot read 'page.svg': it is"),
        "../../x.zip": (b"PK\x03\x04" + bytes(40), "cannot read '../../x.zip': it is"),
    }


@pytest.mark.parametrize("name", ["notes.txt", "empty.png", "half.png", "page.svg", "../../x.zip"])
def test_a_wrong_file_is_told_in_one_line_and_leaves_nothing(page, folder, name):
    content, begins = wrong_files(folder)[name]
    before = sorted(path for path in page.studio.shelf.folder.rglob("*"))
    status, told, _ = page.ask("POST", "/inputs", content, X_Name=name.replace("/", "%2F"))
    assert status == 400
    assert told["error"].startswith(begins)
    assert "\n" not in told["error"]
    assert str(folder) not in told["error"]
    assert sorted(path for path in page.studio.shelf.folder.rglob("*")) == before


def test_too_much_is_refused_before_it_is_read(page):
    status, told, _ = page.ask("POST", "/inputs", b"", Content_Length="100000001", X_Name="large.png")
    assert (status, told["error"]) == (413, "100.0 MB are too much: pictures have at most 100.0 MB")
    status, told, _ = page.ask("POST", "/runs", b"{}", Content_Length="1000001")
    assert (status, told["error"]) == (413, "1.0 MB are too much: forms have at most 1.0 MB")
    assert page.ask("POST", "/inputs", b"", Content_Length=None)[0] == 411
    assert page.ask("POST", "/inputs", b"", Content_Length="-5")[0] == 411


WRONG = {
    "no photograph": ({"content": ""}, "choose a photograph first"),
    "no painting": ({"style": []}, "choose a painting first"),
    "an unknown photograph": (
        {"content": "../photo.png"},
        "there is no picture '../photo.png' here any more: choose it again",
    ),
    "an unknown mask": ({"keep": "none.png"}, "there is no picture 'none.png' here any more: choose it again"),
    "a damaged form": ({"style": "painting"}, "the form is damaged: load the page again"),
    "no number": ({"size": "large"}, "size: 'large' is not a whole number"),
    "no iterations": ({"iterations": "0"}, "iterations: '0' is not at least 1"),
    "a negative weight": ({"content_weight": "-1"}, "content weight: '-1' is not a finite number of at least 0"),
    "an infinite weight": (
        {"variation_weight": "inf"},
        "variation weight: 'inf' is not a finite number of at least 0",
    ),
    "an unknown layer": ({"style_layers": "conv9_9"}, "unknown layer 'conv9_9'; did you mean 'conv5_4'?"),
    "unknown colors": ({"colors": "xx"}, "colors: unknown colors 'xx'; choose from"),
    "a file of this machine": ({"model": "/etc/passwd"}, "there is no model '/etc/passwd' here, but "),
    "a file to begin with": ({"init": "/etc/passwd"}, "there is no picture '/etc/passwd' to begin with"),
    "an unknown option": ({"output": "x"}, "there is no option 'output'"),
    "too large a picture": ({"size": "9000"}, "9000 pixels are more than 8192: use the command line for that"),
    "too many sizes": (
        {"levels": "9"},
        "--levels 9 begins at 1/256 of the size: nothing is left; give at most --levels 2",
    ),
    "too many paintings": ({"style": ["x"] * 13}, "13 paintings are more than 12"),
    "weights of other paintings": ({"blend": "1,2"}, "--blend has 2 weights for one painting"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_input_is_told_in_one_line(page, what):
    given, expected = WRONG[what]
    form = page.studio.form()
    for name, value in given.items():
        if name in form:
            form[name] = value
        else:
            form["options"][name] = value
    told = page.refusal("/runs", form)
    assert told.startswith(expected)
    assert page.studio.queue.current is None


def test_what_is_no_form_is_told_in_one_line(page):
    for content in (b"", b"{", b"[" * 100_000, b"[]", b'"x"', b"\xff"):
        assert page.refusal("/runs", content) == "the form is damaged: load the page again"
    status, told, _ = page.ask("POST", "/runs", b"{}", Content_Type="text/plain")
    assert (status, told["error"]) == (415, "a form is sent as application/json")
    assert page.refusal("/run/7/pause", {}) == "this picture is not being made any more"
    assert page.refusal("/pictures/7/again", {}) == "there is no picture 7"
    assert page.refusal("/queue/7/remove", {}) == "this picture does not wait any more"


def test_what_is_not_there_is_told(page):
    for method, path in (
        ("GET", "/../tools/studio/server.py"),
        ("GET", "/page.py"),
        ("PUT", "/runs"),
        ("GET", "/runs"),
    ):
        status, told, _ = page.ask(method, path)
        assert status in (404, 405)
        assert told == {"error": "there is nothing here"}
    assert page.ask("GET", "/inputs/..%2F.lock")[0] in (400, 404)
    assert page.ask("GET", "/pictures/1.png")[0] == 400


def test_memory_and_time_are_told_before_the_start(page):
    page.studio.networks.try_out(page.studio.order().options)
    told = page.post("/estimate", page.studio.form(size="200"))
    assert (told["width"], told["height"], told["levels"]) == (200, 150, 2)
    assert told["seconds"] > 0
    assert told["memory"].endswith(("MB", "GB"))
    assert told["command"].startswith("python -m tools.stylize ")
    assert told["content_weight"] == told["recommended"]
    assert page.post("/estimate", page.studio.form(content_weight="7"))["content_weight"] == 7


def events(page):
    """Yield what the page is told, as it comes."""
    connection = http.client.HTTPConnection("127.0.0.1", page.site.port, timeout=60)
    try:
        connection.request("GET", "/events", headers={"Cookie": f"studio-{page.site.port}=the-token"})
        answer = connection.getresponse()
        assert answer.getheader("Content-Type") == "text/event-stream"
        while line := answer.readline():
            if line.startswith(b"data: "):
                yield json.loads(line[6:])
    finally:
        connection.close()


@pytest.mark.slow
def test_a_run_is_watched_steered_and_kept(page):
    told = events(page)
    assert next(told)["pictures"] == []
    number = page.post("/runs", page.studio.form(size="64", iterations="100000", optimizer="adam"))["number"]
    versions, points = set(), []
    for event in told:
        run = event["run"]
        if run:
            assert run["first"] == len(points)
            points += run["points"]
            if run["shown"]:
                versions.add(run["shown"])
                status, picture, headers = page.ask("GET", f"/run/{number}/now.jpg")
                assert (status, headers["Content-Type"], picture[:2]) == (200, "image/jpeg", b"\xff\xd8")
        if len(versions) >= 3:
            break
    page.post(
        f"/run/{number}/change",
        page.studio.form(size="64", iterations="100000", optimizer="adam", content_weight="1000"),
    )
    changed = next(event["run"] for event in told if event["run"]["steered"])
    assert changed["form"]["options"]["content_weight"] == "1000.0"
    assert page.ask("GET", f"/run/{number}/before.jpg")[0] == 200
    page.post(f"/run/{number}/pause")
    assert next(event["run"]["status"] for event in told if event["run"]["status"] == "paused")
    page.post(f"/run/{number}/resume")
    page.post(f"/run/{number}/stop")
    pictures = next(event["pictures"] for event in told if event.get("pictures"))
    told.close()
    assert pictures[0]["facts"]["stop"] == "stopped"
    assert page.ask("GET", "/pictures/1.png")[1].startswith(b"\x89PNG")
    assert page.ask("GET", "/pictures/1.jpg")[1].startswith(b"\xff\xd8")


@pytest.mark.slow
def test_others_wait_in_the_queue_and_a_closed_page_stops_nothing(page):
    told = events(page)
    first = page.post("/runs", page.studio.form(iterations="100000", optimizer="adam"))["number"]
    second, third = (page.post("/runs", page.studio.form(seed="1", init="noise"))["number"] for _ in range(2))
    event = next(event for event in told if len(event["waiting"]) == 2)
    assert event["run"]["number"] == first
    assert [run["number"] for run in event["waiting"]] == [second, third]
    told.close()  # the page
    page.post(f"/queue/{third}/remove")
    page.post(f"/run/{first}/larger", {"size": 96})
    queue = page.studio.queue
    until(lambda: queue.current and queue.current.order.options.init == "0001.png" and queue.current.points())
    queue.current.stop()
    until(lambda: len(page.studio.shelf.pictures) == 3)
    latest, larger, stopped = page.studio.shelf.pictures
    assert stopped.facts["stop"] == "stopped"
    # What goes on from it comes before what waits.
    assert (larger.size, larger.form["options"]["init"]) == ((72, 96), "0001.png")
    assert latest.form["options"]["init"] == "noise"
    page.post("/pictures/3/again")
    until(lambda: len(page.studio.shelf.pictures) == 4)
    again, before = (page.studio.shelf.picture_path(f"000{number}.png") for number in (4, 3))
    assert (load_image(again).pixels == load_image(before).pixels).all()
    assert page.refusal("/pictures/3/larger", {"size": 0}) == "the size must be a whole number of 1 to 8192 pixels"


@pytest.mark.slow
def test_a_picture_that_fails_is_told_and_the_next_one_is_made(page):
    form = page.studio.form()
    black = page.studio.shelf.bring_in("black.ppm", b"P6 48 36 255\n" + bytes(48 * 36 * 3))
    page.post("/runs", form | {"keep": black})
    page.post("/runs", form)
    until(lambda: page.studio.shelf.pictures)
    (failure,) = page.studio.queue.failures
    assert failure.reason.endswith("is black: white is what it chooses")
    assert "\n" not in failure.reason


def test_a_taken_port_is_told_in_one_line(page):
    with pytest.raises(ValueError, match=r"^cannot serve on port \d+: .*; choose another --port$"):
        module.server_on(page.site.port)
    with pytest.raises(ValueError, match=r"^cannot serve on port 70000: "):
        module.server_on(70000)
