"""Web application (Starlette): two pages and what they ask for. It answers this machine alone, and calls no other."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from anyio import CapacityLimiter, to_thread
from jinja2 import Environment, PackageLoader
from numpy.typing import NDArray
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pmsi.data.pixels import resize_pixels
from pmsi.deployment.answers import make_answer
from pmsi.deployment.photos import crop_center
from pmsi.deployment.runtimes import Model
from pmsi.deployment.serve.playground import SIDE, Dials, make_cards
from pmsi.deployment.serve.uploads import (
    MOST_BYTES,
    crop_square,
    encode_picture,
    make_link,
    read_link,
    read_upload,
)

Examples = Mapping[str, Sequence[Callable[[], NDArray[np.uint8]]]]
"""Functions that read example images ``[h, w, 3]`` of each class."""
Explain = Callable[[NDArray[np.uint8], str], NDArray[np.uint8]]
"""Picture ``[3, h, w]`` and class to the picture under its Grad-CAM."""

_EXAMPLES = 3  # of each class
_THUMB = 128  # px
_HEADERS = {
    "content-security-policy": "default-src 'none'; connect-src 'self'; img-src 'self' data:; script-src 'self'; "
    "style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
_MARK = ("x-pmsi", "page")  # a header of our pages' requests, which pages of other sites may not send


@dataclass(frozen=True)
class Desk:
    """Network that the pages ask, and what they show beside its answers.

    Args:
        model: an opened network.
        name: of its file.
        explain: draws Grad-CAM; None for files without gradients.
        examples: of some or all classes.
        threshold: confidence below which the answer is "not sure".
    """

    model: Model
    name: str
    explain: Explain | None = None
    examples: Examples = field(default_factory=dict)
    threshold: float = 0.5

    def answer(self, content: bytes) -> dict[str, Any]:
        """Answer about one uploaded photograph, ready for JSON.

        Raises:
            ValueError: it cannot be read.
        """
        upload, facts = read_upload(content), self.model.description
        picture = crop_center(resize_pixels(upload.pixels, facts.resize, facts.resize), facts.crop)
        probabilities = self.model.predict(picture[None])[0]
        answer = make_answer(Path("photograph"), probabilities, facts.classes, self.threshold)
        heat = None if self.explain is None else self.explain(picture, answer.classes[0])
        return {
            "verdict": answer.verdict,
            "sure": answer.sure,
            "remark": upload.remark,
            "picture": make_link(picture),
            "heat": None if heat is None else make_link(heat),
            "best": [
                {"name": name, "confidence": confidence, "examples": self._list_links(name)}
                for name, confidence in zip(answer.classes, answer.confidences, strict=True)
            ],
        }

    def _list_links(self, name: str) -> list[str]:
        label = self.model.description.classes.index(name)
        return [f"/example/{label}/{number}" for number in range(min(_EXAMPLES, len(self.examples.get(name, ()))))]

    def read_example(self, label: int, number: int) -> bytes:
        """JPEG of an example image of a class.

        Raises:
            IndexError: there is none. Exception: whatever a decoder raises for a file that cannot be read.
        """
        read = self.examples.get(self.model.description.classes[label], ())[number]
        return encode_picture(crop_square(read(), _THUMB))

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Values for the templates."""
        described = self.model.description
        return {
            "file": self.name,
            "described": described,
            "gradients": self.explain is not None,
            "examples": bool(self.examples),
            "dials": Dials(),
            "megabytes": MOST_BYTES // 2**20,
        }


def make_app(desk: Desk) -> Starlette:
    """Make the application.

    Requests are refused that name another host than this one (so that no foreign site can be pointed at it), and those
    that ask for work without a header which browsers let no foreign page send.
    """
    # One at a time: hooks of Grad-CAM are the network's, and a photograph may take 200 MB.
    turn = CapacityLimiter(1)
    templates = Environment(loader=PackageLoader("pmsi.deployment.serve"), autoescape=True)

    def show(page: str) -> Callable[[Request], Awaitable[Response]]:
        text = templates.get_template(f"{page}.html.j2").render(page=page, **desk.facts)

        async def respond(_: Request) -> Response:
            return HTMLResponse(text)

        return respond

    def work(carry_out: Callable[[bytes], dict[str, Any]]) -> Callable[[Request], Awaitable[Response]]:
        async def respond(request: Request) -> Response:
            if request.headers.get(_MARK[0]) != _MARK[1]:
                raise HTTPException(403, "this is for pages of pmsi serve alone")
            content = await _read_body(request)
            try:
                found = await to_thread.run_sync(partial(carry_out, content), limiter=turn)
            except ValueError as error:
                raise HTTPException(422, str(error)) from error
            return JSONResponse(found)

        return respond

    async def show_example(request: Request) -> Response:
        place = (request.path_params["label"], request.path_params["number"])
        try:
            content = await to_thread.run_sync(partial(desk.read_example, *place), limiter=turn)
        except Exception as error:  # none there, moved, or whatever Pillow raises for it
            raise HTTPException(404, "there is no such example") from error
        return Response(content, media_type="image/jpeg")

    return Starlette(
        routes=[
            Route("/", show("answers")),
            Route("/playground", show("playground")),
            Route("/answer", work(desk.answer), methods=["POST"]),
            Route("/photo", work(_take_photo), methods=["POST"]),
            Route("/augment", work(_augment), methods=["POST"]),
            Route("/example/{label:int}/{number:int}", show_example),
            Mount("/static", StaticFiles(packages=[("pmsi.deployment.serve", "static")])),
        ],
        middleware=[
            Middleware(_WithHeaders),
            Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"], www_redirect=False),
        ],
        exception_handlers={HTTPException: _say_error, Exception: _say_error},
    )


def _take_photo(content: bytes) -> dict[str, Any]:
    """Square of an uploaded photograph, which the page sends back with every move of a slider."""
    upload = read_upload(content)
    return {"picture": make_link(crop_square(upload.pixels, SIDE)), "remark": upload.remark}


def _augment(content: bytes) -> dict[str, Any]:
    try:
        asked = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError("the request is no JSON") from error
    if not isinstance(asked, dict):
        raise ValueError("the request is no JSON object")
    links = [asked.get("photo"), *([asked["partner"]] if asked.get("partner") else [])]
    photo, *partner = (crop_square(read_link(link).pixels, SIDE) for link in links)
    return {"cards": make_cards(photo, partner[0] if partner else None, Dials.from_values(asked))}


async def _read_body(request: Request) -> bytes:
    """Body of a request, up to the limit."""
    parts, total = list[bytes](), 0
    async for part in request.stream():
        total += len(part)
        if total > MOST_BYTES:
            raise HTTPException(413, f"the file has over {MOST_BYTES // 2**20} MB, which is the limit")
        parts.append(part)
    return b"".join(parts)


async def _say_error(_: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        return JSONResponse({"error": error.detail}, error.status_code)
    return JSONResponse({"error": "something went wrong here; the terminal of pmsi serve says what"}, 500)


class _WithHeaders:
    """Middleware that adds the headers which keep a page to this server."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                ours = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *ours]}
            await send(message)

        await self.app(scope, receive, send_with_headers)
