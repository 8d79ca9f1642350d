"""Description that every exported file carries: classes, preprocessing, temperature, origin. Plain values, no torch."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

FORMAT = 1  # of the description and of what a file computes; raised when older readers would be wrong
KEY = "pmsi"  # of the description in a file's metadata


@dataclass(frozen=True)
class Description:
    """Facts about an exported network.

    It takes bytes, uint8 ``[B, 3, crop, crop]`` in RGB, and gives probabilities, float32 ``[B, K]``: normalisation,
    temperature and softmax are inside.

    Args:
        classes: K names.
        resize: both sides of an image become so many px, whatever its shape.
        filter: by which they do (`pmsi.data.pixels.resize_pixels`).
        crop: side of the central part that the network takes, px.
        mean, std: of each channel's bytes, subtracted and divided by.
        output: logits that the probabilities are made of.
        temperature: by which these are divided.
        precision: of the weights.
        data: name of the data set that it was trained on.
        recipe: settings of the training.
        weights: initial weights of the backbone.
        written_by: version and commit of the checkpoint.
        versions: of the packages that trained it.
        format: of this description.
    """

    classes: tuple[str, ...]
    resize: int
    filter: str
    crop: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    output: str
    temperature: float
    precision: str
    data: str
    recipe: dict[str, Any]
    weights: str
    written_by: str
    versions: dict[str, str]
    format: int = FORMAT

    def to_json(self) -> str:
        """Text for a file's metadata; `read_description` takes it back."""
        return json.dumps(asdict(self))

    def with_precision(self, precision: str) -> Description:
        """Copy for a file of another precision."""
        return replace(self, precision=precision)


@dataclass(frozen=True)
class Precisions:
    """Layers of an int8 file that are not int8, by the names of their nodes.

    Args:
        float32: their weights and outputs stay so.
        int4: their weights have four bits.
    """

    float32: tuple[str, ...] = ()
    int4: tuple[str, ...] = ()


def read_description(text: str | None, name: str) -> Description:
    """Read the description of an exported file.

    Args:
        text: of its metadata; None where there is none.
        name: of the file, for messages.

    Raises:
        ValueError: it is no export of pmsi, or of a version that this one does not know.
    """
    if text is None:
        raise ValueError(f"{name} is no export of pmsi: it holds no description; write one with `pmsi export`")
    try:
        values = json.loads(text)
        kind = values["format"]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{name} has a damaged description ({error}); export the checkpoint again") from error
    known = {one.name for one in fields(Description)}
    if kind != FORMAT or values.keys() != known:
        wrote = values.get("written_by", "an unknown version")
        raise ValueError(
            f"{name} is an export of format {kind!r}, of {wrote}; this version reads format {FORMAT}: export the "
            "checkpoint again"
        )
    lists = {key: tuple(values[key]) for key in ("classes", "mean", "std")}
    return Description(**{**values, **lists})


def name_damage(path: Path, error: Exception) -> ValueError:
    """Name a file that its runtime cannot read, in one line."""
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return ValueError(f"{path} is damaged, or no {path.suffix} file that this runtime can read ({reason})")
