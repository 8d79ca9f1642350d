"""Hostile requests to the pages of `pmsi serve`: uploads, slider positions, and calls from elsewhere."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pmsi.deployment.runtimes import Model
from pmsi.deployment.serve.uploads import MOST_BYTES, make_link
from tests.helpers.asgi import Response, request
from tests.helpers.small_export import describe
from tests.hostile.case import Case
from tests.hostile.images import KINDS, make_picture, make_png, make_postscript

_OURS = {"x-pmsi": "page"}
_MARKUP = "<script>alert(1)</script>"


def predict(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The same answer for every photograph."""
    return np.tile(np.array([[0.25, 0.75]], np.float32), (len(images), 1))


def ask(path: str, body: bytes | None = None, headers: Mapping[str, str] = _OURS) -> Response:
    """Answer of the application to one request; a GET without a body."""
    pytest.importorskip("starlette", reason="starlette is missing: pip install '.[serve]'")
    from pmsi.deployment.serve.app import Desk, make_app

    return request(make_app(Desk(Model(describe(), predict), "last.ckpt")), path, body, headers)


def refuse(status: int, path: str, body: bytes | None, headers: Mapping[str, str], _: Path) -> None:
    """Raise what the page shows for a request that is refused with this status."""
    response = ask(path, body, headers)
    assert response.status == status, response
    raise ValueError(response.values["error"])


def upload(make: Callable[[], bytes]) -> Callable[[Path], None]:
    """Use of a photograph that both pages refuse."""

    def use(room: Path) -> None:
        content = make()
        assert ask("/photo", content).values == ask("/answer", content).values
        refuse(422, "/answer", content, _OURS, room)

    return use


def move(**sliders: Any) -> Callable[[Path], None]:
    """Use of slider positions that are refused."""
    asked = {"photo": make_link(np.zeros((3, 8, 8), np.uint8)), **sliders}
    return partial(refuse, 422, "/augment", json.dumps(asked).encode(), _OURS)


def make_bomb() -> bytes:
    """A picture of few bytes and 72 megapixels."""
    file = io.BytesIO()
    Image.new("1", (9000, 8000)).save(file, "PNG")
    return file.getvalue()


def cut_anywhere(room: Path) -> None:
    """Send photographs cut at random places: each gets an answer or one line, and the server goes on."""
    for kind in KINDS:
        content = make_picture(kind)
        for length in np.random.default_rng(2).integers(1, len(content), 10):
            response = ask("/answer", content[:length])
            assert response.status in (200, 422), response
            assert response.status == 200 or "\n" not in response.values["error"]
    refuse(422, "/answer", make_picture("jpg")[:100], _OURS, room)


def send_polyglot(_: Path) -> None:
    """A picture with markup behind it comes back as a picture drawn anew."""
    response = ask("/photo", make_picture("jpg") + _MARKUP.encode())
    assert response.status == 200
    assert "script" not in json.dumps(response.values)


def send_too_much(room: Path) -> None:
    refuse(413, "/answer", bytes(MOST_BYTES + 1), _OURS, room)


UPLOADS = (
    Case("nothing", upload(lambda: b""), "the file is empty (0 bytes)"),
    Case("a page of HTML", upload(lambda: b"<html>" + _MARKUP.encode()), "this is no image that can be read here"),
    Case("a PostScript program", upload(make_postscript), "this is no image", then="it is not run"),
    Case(f"{', '.join(map(str.upper, KINDS))}: photographs cut at random places", cut_anywhere, "damaged or cut short"),
    Case("72 megapixels in 9 KB", upload(make_bomb), "the limit is 64"),
    Case("60,000 x 60,000 px that are not there", upload(partial(make_png, 60_000, 60_000, b"")), "the limit is 64"),
    Case("more than 32 MB", send_too_much, "the file has over 32 MB, which is the limit"),
    Case("a JPEG that is a script as well", send_polyglot, then="drawn anew; what follows the picture is left out"),
    Case("no JSON for the playground", partial(refuse, 422, "/augment", b"{", _OURS), "is no JSON"),
    Case(
        "100,000 lists in each other for the playground",
        partial(refuse, 422, "/augment", b"[" * 100_000, _OURS),
        "is no JSON",
    ),
    Case("a number for the playground", partial(refuse, 422, "/augment", b"5", _OURS), "is no JSON object"),
    Case("sliders beyond their ends", move(r=1000), "r must lie in 0..5, got 1000"),
    Case("sliders at words", move(alpha="ab"), "alpha must be a number, got 'ab'"),
    Case("sliders at infinity", move(alpha=float("inf")), "alpha must lie in 0.05..10.0, got inf"),
    Case("sliders at NaN", move(alpha=float("nan")), "alpha must lie in 0.05..10.0, got nan"),
    Case("a seed of 2^70", move(seed=2**70), "seed must lie in"),
    Case(
        "a photograph that is an address elsewhere",
        partial(refuse, 422, "/augment", b'{"photo": "http://example.org/a.jpg"}', _OURS),
        "the picture",
        then="nothing is fetched",
    ),
    Case("a form of another site", partial(refuse, 403, "/answer", make_picture("jpg"), {}), "alone"),
    Case("an example that there is not", partial(refuse, 404, "/example/0/99", None, {}), "there is no such example"),
    Case("an example of no class", partial(refuse, 404, "/example/99/0", None, {}), "there is no such example"),
)
