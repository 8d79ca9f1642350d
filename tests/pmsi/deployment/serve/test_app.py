"""Pages of `pmsi serve`: answers, limits and refusals request by request, and both pages in a real browser."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pmsi.deployment.runtimes import Model
from tests.helpers.asgi import Response, request
from tests.helpers.browser import CHROMIUM, Page, browse
from tests.helpers.small_export import describe

pytest.importorskip("starlette", reason="starlette is missing: pip install '.[serve]'")

from pmsi.deployment.serve import app as module
from pmsi.deployment.serve.app import Desk, make_app
from pmsi.deployment.serve.uploads import read_link

OURS = {"x-pmsi": "page"}


def predict(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The share of blue says "blue"."""
    share = images[:, 2].mean((1, 2)) / 255
    return np.stack([1 - share, share], 1).astype(np.float32)


def explain(picture: NDArray[np.uint8], name: str) -> NDArray[np.uint8]:
    assert name in ("dark", "blue")
    return 255 - picture


def read_blue() -> NDArray[np.uint8]:
    return np.full((9, 12, 3), (0, 0, 250), np.uint8)


def read_damaged() -> NDArray[np.uint8]:
    raise SyntaxError("broken PNG file")


@pytest.fixture
def desk() -> Desk:
    examples = {"blue": [read_blue, read_damaged, read_blue, read_blue]}
    return Desk(Model(describe(), predict), "last.ckpt", explain, examples, threshold=0.7)


@pytest.fixture
def app(desk: Desk) -> Any:
    return make_app(desk)


def make_photo(blue: int, side: int = 40) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side), (0, 0, blue)).save(file, "PNG")
    return file.getvalue()


def post(app: Any, path: str, body: bytes, parts: int = 1) -> Response:
    return request(app, path, body, OURS, parts)


def test_a_photograph_gets_its_best_classes(app: Any) -> None:
    found = post(app, "/answer", make_photo(250), parts=3).values
    assert (found["verdict"], found["sure"]) == ("blue", True)
    assert [one["name"] for one in found["best"]] == ["blue", "dark"]
    assert found["best"][0]["examples"] == ["/example/1/0", "/example/1/1", "/example/1/2"]
    assert found["best"][1]["examples"] == []
    assert (read_link(found["picture"]).pixels[..., 2] > 240).all()
    assert (read_link(found["heat"]).pixels[..., 2] < 15).all(), "Grad-CAM lies over it"
    assert post(app, "/answer", make_photo(130)).values["verdict"] == "not sure"


def test_files_without_gradients_show_no_map(desk: Desk) -> None:
    plain = make_app(Desk(desk.model, "a.onnx"))
    assert post(plain, "/answer", make_photo(250)).values["heat"] is None
    page = request(plain, "/").body.decode()
    assert "Serve last.ckpt of the run" in page
    assert "--examples" in page


def test_examples_that_cannot_be_read_are_missing_alone(app: Any) -> None:
    shown = request(app, "/example/1/0")
    assert shown.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(shown.body)).size == (128, 128)
    assert [request(app, f"/example/{place}").status for place in ("1/1", "1/9", "0/0", "7/0")] == [404] * 4


def test_the_playground_draws_what_it_is_asked_for(app: Any) -> None:
    photo = post(app, "/photo", make_photo(200)).values["picture"]
    asked = {"photo": photo, "partner": photo, "r": 1, "n": 2, "alpha": 1.5, "beta": 5, "seed": 3}
    cards = post(app, "/augment", json.dumps(asked).encode()).values["cards"]
    assert [card["plan"]["grid"] for card in cards] == [2, 2, 1, 1, 1]
    assert "CutMix(alpha=1.5)" in cards[2]["code"]


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/answer", b"", "the file is empty"),
        ("/photo", b"words", "no image"),
        ("/augment", b"[", "no JSON"),
        ("/augment", b"[1]", "no JSON object"),
        ("/augment", b"{}", "the picture must be"),
        ("/augment", b'{"photo": "http://example.org/a.png"}', "the picture must be"),
    ],
)
def test_bad_requests_get_one_line(app: Any, path: str, body: bytes, message: str) -> None:
    found = post(app, path, body)
    assert found.status == 422
    assert message in found.values["error"]


def test_a_body_over_the_limit_is_cut_off(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 50)
    assert post(app, "/answer", bytes(80), parts=4).status == 413


def test_other_sites_are_refused(app: Any) -> None:
    """A page of another site may send a form here, or have its own name point here; it may not set our header."""
    assert request(app, "/answer", make_photo(250)).status == 403
    assert request(app, "/", headers={"host": "evil.example"}).status == 400
    assert request(app, "/", headers={"host": "localhost:8000"}).status == 200
    assert request(app, "/static/../app.py").status == 404


def test_pages_may_ask_this_server_alone(app: Any) -> None:
    for path in ("/", "/playground", "/static/common.js", "/missing"):
        headers = request(app, path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


@pytest.fixture
def address(app: Any) -> Iterator[str]:
    """The application on a port of this machine."""
    uvicorn = pytest.importorskip("uvicorn")
    from pmsi.cli.serve import open_port

    with open_port(0) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_both_pages_work_in_a_browser(address: str, tmp_path: Path) -> None:
    good, bad = tmp_path / "a <b>_c.png", tmp_path / "bad.png"
    good.write_bytes(make_photo(250))
    bad.touch()

    async def visit(page: Page) -> None:
        await page.open(f"{address}/")
        await page.choose_files("#files", [good, bad])
        await page.wait("document.querySelectorAll('.best li').length == 2 && document.querySelector('.error')")
        shown = await page.run("[...document.querySelectorAll('.answer h2, .remark')].map(one => one.textContent)")
        assert shown == ["blue", "a <b>_c.png", "bad.png", "the file is empty (0 bytes)"]
        assert await page.run("document.querySelectorAll('figure img').length") == 2
        await page.wait("document.querySelectorAll('.examples img').length == 2")  # the damaged one is gone

        await page.open(f"{address}/playground")
        await page.choose_files("#photo", [good])
        await page.wait("document.querySelectorAll('.card').length == 6")
        assert await page.run("document.querySelectorAll('.card .tile').length") == 8 * 8 + 4 * 4
        await page.run(
            "{ const n = document.querySelector('[name=n]'); n.value = 2;"
            " n.dispatchEvent(new Event('input', {bubbles: true})) }"
        )
        await page.wait("document.querySelectorAll('.card .tile').length == 8 * 8 + 2 * 2")
        assert "Jigsaw(n=2)(images)" in await page.run("document.body.innerText")
        await page.choose_files("#partner", [bad])
        await page.wait("document.querySelector('[role=alert]').innerText == 'the file is empty (0 bytes)'")
        assert await page.run("document.documentElement.scrollWidth <= innerWidth")

    page = browse(visit, tmp_path / "profile")
    assert page.errors == []
    assert [one for one in page.addresses if not one.startswith((address, "data:"))] == [], "no other server is asked"
