"""Chromium without a window, driven over its DevTools protocol by aiohttp, which lightning-fabric brings."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")


class Page:
    """One tab; `addresses` are all that it asked for."""

    def __init__(self, socket: Any) -> None:
        self.socket, self.number = socket, 0
        self.addresses, self.errors = list[str](), list[str]()

    async def call(self, method: str, **values: Any) -> dict[str, Any]:
        """Call a method of the protocol, and note the events before its answer."""
        self.number += 1
        await self.socket.send_json({"id": self.number, "method": method, "params": values})
        while True:
            found = await self.socket.receive_json(timeout=60)
            if found.get("id") == self.number:
                assert "error" not in found, found
                result: dict[str, Any] = found["result"]
                return result
            if found["method"] == "Network.requestWillBeSent":
                self.addresses.append(found["params"]["request"]["url"])
            if found["method"] == "Runtime.exceptionThrown":
                self.errors.append(str(found["params"]["exceptionDetails"]))

    async def run(self, code: str) -> Any:
        """Value of an expression in the page."""
        found = await self.call("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def wait(self, code: str, seconds: float = 30) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not await self.run(f"!!({code})"):
            assert time.monotonic() < end, f"never true: {code}"
            await asyncio.sleep(0.05)

    async def open(self, address: str) -> None:
        await self.call("Page.navigate", url=address)
        await self.wait(f"location.href == {address!r} && document.readyState == 'complete'")

    async def choose_files(self, selector: str, paths: Sequence[Path]) -> None:
        """Choose files as a person does in the dialogue of a file input."""
        found = await self.call("Runtime.evaluate", expression=f"document.querySelector({selector!r})")
        await self.call(
            "DOM.setFileInputFiles", objectId=found["result"]["objectId"], files=[str(one) for one in paths]
        )


def browse(visit: Callable[[Page], Awaitable[None]], profile: Path) -> Page:
    """Open a browser with its files in ``profile``, and let ``visit`` use its page."""

    async def carry_out() -> Page:
        async with _open_page(profile) as page:
            for domain in ("Page", "Network", "Runtime"):
                await page.call(f"{domain}.enable")
            await visit(page)
            return page

    return asyncio.run(carry_out())


@asynccontextmanager
async def _open_page(profile: Path) -> AsyncIterator[Page]:
    import aiohttp

    assert CHROMIUM is not None
    command = [CHROMIUM, *_FLAGS, "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        port = next(found[1] for line in lines if (found := re.search(r"ws://[\d.]+:(\d+)/", line)))
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json") as response:
                tabs = await response.json()
            address = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
            async with session.ws_connect(address, max_msg_size=0) as socket:
                yield Page(socket)
    finally:
        process.terminate()
        process.wait()
        print(*process.stderr or (), file=sys.stderr)
