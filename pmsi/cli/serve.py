"""`pmsi serve`: pages on this machine that ask a trained network, and show augmentations of any photograph."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from pmsi.cli.console import say
from pmsi.cli.explain import open_overlay
from pmsi.cli.options import Serve
from pmsi.data import typefaces
from pmsi.data.layouts import LAYOUTS, list_images
from pmsi.data.pixels import read_pixels
from pmsi.deployment.description import Description
from pmsi.deployment.photos import list_photos
from pmsi.deployment.runtimes import is_installed, open_model
from pmsi.experiments.folder import read_config

_HOST = "127.0.0.1"
_MOST_EXAMPLES = 3
Examples = dict[str, list[Callable[[], NDArray[np.uint8]]]]


def run_serve(command: Serve, console: Console) -> int:
    """Serve the pages until Ctrl-C.

    Raises:
        ValueError, OSError: a package, the model or the port is missing or taken, with one clear line.
    """
    # 1. What is needed.
    missing = [name for name in ("starlette", "uvicorn") if not is_installed(name)]
    if missing:
        raise ValueError(f"pmsi serve needs {missing[0]}, which is missing; pip install 'mosaicaug[serve]'")
    if not 0 <= command.threshold <= 1:
        raise ValueError(f"--threshold: must lie in 0..1, got {command.threshold}")
    listener = open_port(command.port)
    from pmsi.deployment.serve.app import Desk, make_app

    with listener:
        # 2. The network, and what is shown beside its answers.
        model = open_model(command.model)
        explain = None
        if command.model.suffix not in (".ckpt", ".safetensors"):
            say(console, f"No Grad-CAM: {command.model.suffix} files have no gradients; serve last.ckpt to see it")
        else:
            try:
                explain = open_overlay(command.model)
            except ValueError as error:  # of a network whose maps cannot be caught; its answers can be asked for
                say(console, str(error))
        examples: Examples = {}
        try:
            examples = list_examples(command, model.description)
        except (ValueError, OSError) as error:
            if command.examples is not None:
                raise
            say(console, f"No example images ({error}); --examples FOLDER names some")

        # 3. The pages.
        app = make_app(Desk(model, command.model.name, explain, examples, command.threshold))
        say(console, f"Serving {command.model.name} at http://{_HOST}:{listener.getsockname()[1]} (Ctrl-C ends it)")
        run_server(app, listener)
    return 0


def run_server(app: Any, listener: socket.socket) -> None:
    """Answer requests that come to a port, until Ctrl-C."""
    from uvicorn import Config, Server

    Server(Config(app, log_level="warning", lifespan="off", server_header=False)).run(sockets=[listener])


def open_port(port: int) -> socket.socket:
    """Open a port of this machine's own address, which no other machine can reach.

    Raises:
        ValueError: it is in use, not allowed, or no port.
    """
    if not 0 <= port <= 65_535:
        raise ValueError(f"--port: must lie in 0..65535, got {port}")
    try:
        return socket.create_server((_HOST, port))
    except OSError as error:
        raise ValueError(
            f"--port: {port} cannot be used ({error.strerror}); name another, or 0 for a free one"
        ) from error


def list_examples(command: Serve, description: Description) -> Examples:
    """List example images of each class: of the folder that was named, or of the data set of the run.

    Raises:
        FileNotFoundError: the images are not where they were, or there is no such folder.
        ValueError: the folder has no folder of a class, or nothing says where images are.
    """
    if command.examples is None and description.data == "typefaces":
        return {name: [partial(_render, name, n) for n in range(_MOST_EXAMPLES)] for name in typefaces.TYPEFACES}
    files: dict[str, list[Path]] = {}
    if command.examples is not None:
        if not command.examples.is_dir():
            raise FileNotFoundError(f"--examples: there is no folder {command.examples}")
        folders = [command.examples / name for name in description.classes]
        files = {folder.name: list_photos([str(folder)]) for folder in folders if folder.is_dir()}
        if not files:
            first = description.classes[0]
            raise ValueError(f"--examples: {command.examples} has no folder of a class, such as {first}")
    else:
        stored = read_config(command.model.parent) or {}
        data, root = stored.get("data"), stored.get("root")
        if data not in LAYOUTS or data != description.data or not isinstance(root, str):
            raise ValueError(f"nothing beside {command.model.name} says where those of {description.data} are")
        listing = list_images(data, Path(root))
        for path, label in listing.train:
            files.setdefault(listing.classes[label], []).append(path)
    return {name: [partial(read_pixels, path) for path in paths[:_MOST_EXAMPLES]] for name, paths in files.items()}


def _render(typeface: str, number: int) -> NDArray[np.uint8]:
    specimen = typefaces.draw_specimen(typeface, "train", number)
    pixels: NDArray[np.uint8] = typefaces.render_specimen(typeface, specimen, 128).permute(1, 2, 0).numpy()
    return pixels
