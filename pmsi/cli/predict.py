"""`pmsi predict`: photographs named by a trained network. Nothing here imports torch before a model needs it."""

from __future__ import annotations

import argparse
import ast
import inspect
import itertools
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pmsi.deployment.answers import Answer, Format, make_answer, render_answers
from pmsi.deployment.photos import fetch_photos, list_photos
from pmsi.deployment.runtimes import Model, open_model
from pmsi.deployment.sheet import write_sheet
from pmsi.runtime.files import write_text

_BATCH = 16
_MOST_PICTURES = 600  # on a contact sheet


@dataclass(frozen=True)
class Predict:
    """Name what photographs show: the five best classes, with calibrated confidence."""

    model: Path
    """last.ckpt of a run, or a file that `pmsi export` wrote; each is asked by its own runtime alone."""
    images: tuple[str, ...]
    """Files, folders (with all below them), or patterns such as "shots/*.jpg"."""
    threshold: float = 0.5
    """Confidence below which the answer is "not sure", 0 to 1."""
    format: Format = "table"
    """Of the answers."""
    out: Path | None = None
    """File for the answers; by default they are printed."""
    sheet: Path | None = None
    """PNG of all photographs with their answers."""
    gradcam: Path | None = None
    """Folder for a PNG of each photograph with Grad-CAM of its best class; from a checkpoint or .safetensors."""
    workers: int | None = None
    """Threads that read photographs; None is one for each core that may be used."""


def run_predict(command: Predict) -> int:
    """Ask the model, and print or write what it answers.

    Returns:
        The exit code: 0, or 1 where some photographs could not be read.

    Raises:
        ValueError, OSError: nothing could be answered, with one clear line.
    """
    # 1. What was asked for is there.
    if not 0 <= command.threshold <= 1:
        raise ValueError(f"--threshold: must lie in 0..1, got {command.threshold}")
    paths = list_photos(command.images)
    if command.sheet is not None and len(paths) > _MOST_PICTURES:
        raise ValueError(f"--sheet: shows {_MOST_PICTURES} photographs at most, got {len(paths)}")
    model = open_model(command.model)
    explain = None
    if command.gradcam is not None:
        explain = _open_explainer(command.model)

    # 2. Photographs are read on all cores, and answered in batches.
    answers, pictures, failed = list[Answer](), list[NDArray[np.uint8]](), list[str]()
    keep = command.sheet is not None or explain is not None
    with warnings.catch_warnings(), Bar("photographs", len(paths)) as bar:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # a limit of ours is not needed below Pillow's
        fetched = fetch_photos(paths, model.description, command.workers)
        while batch := list(itertools.islice(fetched, _BATCH)):
            read = [(path, found) for path, found in batch if not isinstance(found, ValueError)]
            failed += [str(found) for _, found in batch if isinstance(found, ValueError)]
            answers += _ask(model, read, command.threshold)
            pictures += [found for _, found in read] if keep else []
            bar.advance(len(batch))

    # 3. What is said and written.
    for line in failed:
        print(f"pmsi: {line}", file=sys.stderr)
    if not answers:
        raise ValueError(f"none of {len(paths)} photographs could be read")
    text = render_answers(answers, command.format)
    if command.out is None:
        sys.stdout.write(text)
    else:
        write_text(command.out, text)
    if explain is not None and command.gradcam is not None:
        pictures = explain(pictures, answers, command.gradcam)
    if command.sheet is not None:
        write_sheet(pictures, answers, command.sheet)
    return 1 if failed else 0


def _ask(model: Model, read: Sequence[tuple[Path, NDArray[np.uint8]]], threshold: float) -> list[Answer]:
    if not read:
        return []
    found = model.predict(np.stack([pixels for _, pixels in read]))
    classes = model.description.classes
    return [make_answer(path, row, classes, threshold) for (path, _), row in zip(read, found, strict=True)]


def _open_explainer(path: Path) -> Any:
    """Function that draws Grad-CAM; it needs gradients, and so torch and the network itself."""
    if path.suffix not in (".ckpt", ".safetensors"):
        raise ValueError(f"--gradcam: needs gradients, which {path.suffix} files have not; give last.ckpt of the run")
    from pmsi.cli.explain import open_explainer

    return open_explainer(path)


class Bar:
    """Progress bar in a terminal, on standard error; silent elsewhere."""

    def __init__(self, what: str, total: int) -> None:
        self.what, self.total, self.done, self.shown = what, total, 0, 0.0
        self.live = sys.stderr.isatty()

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self.live and self.shown:
            sys.stderr.write("\r\x1b[K")

    def advance(self, count: int) -> None:
        """Count more of them as done."""
        self.done += count
        now = time.monotonic()
        if self.live and now - self.shown > 0.1:
            self.shown = now
            filled = 30 * self.done // self.total
            sys.stderr.write(f"\r{self.what} {'#' * filled}{'.' * (30 - filled)} {self.done}/{self.total}\x1b[K")
            sys.stderr.flush()


def main(words: Sequence[str]) -> int:
    """Run `pmsi predict` by itself, with Pillow, numpy and the model's runtime alone.

    Args:
        words: after ``pmsi predict``.

    Returns:
        The exit code: as `run_predict`, 2 for an error in what was asked, 130 when stopped.
    """
    try:
        return run_predict(parse_predict(words))
    except BrokenPipeError:
        raise  # no error of ours
    except (ValueError, OSError) as error:
        print(f"pmsi: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130


def parse_predict(words: Sequence[str]) -> Predict:
    """Parse the words after ``pmsi predict`` by the fields of `Predict`.

    Raises:
        SystemExit: words that are no setting, after argparse has said so; or ``--help``.
    """
    parser = argparse.ArgumentParser("pmsi predict", description=Predict.__doc__, allow_abbrev=False)
    hints, helps = get_type_hints(Predict), read_help(Predict)
    for one in fields(Predict):
        hint, text = hints[one.name], helps[one.name].replace("%", "%%")
        name = one.name.upper() if one.default is MISSING else f"--{one.name}"
        if get_origin(hint) is tuple:
            parser.add_argument(one.name, nargs="+", metavar=name, help=text)
        elif one.default is MISSING:
            parser.add_argument(one.name, type=hint, metavar=name, help=text)
        elif isinstance(one.default, str):
            parser.add_argument(name, choices=get_args(hint), default=one.default, help=text)
        else:
            kind = next(kind for kind in (get_args(hint) or (hint,)) if kind is not type(None))
            parser.add_argument(name, type=kind, default=one.default, help=text)
    found = vars(parser.parse_args(words))
    return Predict(**{**found, "images": tuple(found["images"])})


def read_help(settings: type) -> dict[str, str]:
    """Read the text below each field of a dataclass."""
    (node,) = ast.parse(inspect.getsource(settings)).body
    assert isinstance(node, ast.ClassDef)
    return {
        ast.unparse(one.target): inspect.cleandoc(str(ast.literal_eval(text.value)))
        for one, text in itertools.pairwise(node.body)
        if isinstance(one, ast.AnnAssign) and isinstance(text, ast.Expr)
    }
