"""Cases of the throughput benchmark and the sides that run each; the star is the part that a CPU runs."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

OURS = ("ours", "ours_out", "copy")
PEERS = {
    "rmg": ("dali", "loop"),
    "jigsaw": ("kornia", "dali", "loop"),
    "cutmix": ("kornia", "torchvision", "timm", "dali"),
    "mixup": ("kornia", "torchvision", "timm", "dali"),
    "snapmix": ("dali", "loop"),
}
DOORS = ("torchvision_door", "timm_door", "kornia_door")
LEVELS = {"rmg": 3, "jigsaw": 8}
BATCHES, SIZES = (32, 1, 256), (448, 224)
DTYPES = ("float32", "uint8", "bfloat16")
LAYOUTS: tuple[Literal["nchw", "channels_last"], ...] = ("nchw", "channels_last")
PERS: tuple[Literal["sample", "batch"], ...] = ("sample", "batch")


@dataclass(frozen=True)
class Case:
    """Setting in which all sides are timed; the defaults are the centre of the star.

    Args:
        augmentation: "rmg", "jigsaw", "cutmix", "mixup" or "snapmix".
        task: "augment" a batch; "pipeline", from stored uint8 images to normalised batches; or "draw" plans.
        level: r of rmg, n of jigsaw, None otherwise.
        batch: images per call.
        size: height and width of the output, px.
        dtype: of input and output; of the output for a pipeline.
        layout: "nchw" or "channels_last".
        per: one draw per "sample" or per "batch".
    """

    augmentation: str
    task: Literal["augment", "pipeline", "draw"] = "augment"
    level: int | None = None
    batch: int = 32
    size: int = 448
    dtype: str = "float32"
    layout: Literal["nchw", "channels_last"] = "nchw"
    per: Literal["sample", "batch"] = "sample"

    @property
    def name(self) -> str:
        """Name of the case in test names, for ``-k``."""
        augmentation = f"{self.augmentation}{'' if self.level is None else self.level}"
        return f"{self.task}-{augmentation}-{self.batch}x{self.size}-{self.dtype}-{self.layout}-{self.per}"

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of the output, ``(B, 3, H, W)``."""
        return self.batch, 3, self.size, self.size

    @property
    def torch_dtype(self) -> torch.dtype:
        """Dtype of the output as torch's."""
        value = getattr(torch, self.dtype)
        assert isinstance(value, torch.dtype)
        return value

    @property
    def bytes(self) -> int | None:
        """Smallest traffic in bytes: every pixel read once and written once. A draw has none."""
        pixels, out = self.batch * 3 * self.size**2, self.torch_dtype.itemsize
        return {"augment": pixels * 2 * out, "pipeline": pixels * (1 + out), "draw": None}[self.task]


def list_pairs(device: str) -> list[tuple[Case, str]]:
    """Pairs of case and side for a device type; sides of one case, and cases of equal input, are adjacent."""
    sides: dict[Case, dict[str, None]] = {}
    for case, names in _list_star() if device == "cpu" else itertools.chain(_list_star(), _list_product()):
        sides.setdefault(case, {}).update(dict.fromkeys(names))
    inputs = {_input_of(case): rank for rank, case in reversed(list(enumerate(sides)))}
    ordered = sorted(sides, key=lambda case: inputs[_input_of(case)])
    return [(case, side) for case in ordered for side in sides[case]]


def centre(augmentation: str, **changes: Any) -> Case:
    """Centre of the star: 32 x 448 px, float32, NCHW, per sample, RMG of r=3 and jigsaw of n=8."""
    return replace(Case(augmentation, level=LEVELS.get(augmentation)), **changes)


_Plan = Iterator[tuple[Case, Iterable[str]]]


def _list_star() -> _Plan:
    """Axes through the centre: all that a CPU runs, and the peers on any device."""
    for name, batch, size, dtype in itertools.product(PEERS, BATCHES, SIZES, DTYPES):
        yield centre(name, batch=batch, size=size, dtype=dtype), OURS
    for name, dtype, layout, per in itertools.product(PEERS, DTYPES, LAYOUTS, PERS):
        yield centre(name, dtype=dtype, layout=layout, per=per), OURS
    for name, batch, size, dtype, per in itertools.product(PEERS, (32, 1), SIZES, ("float32", "uint8"), PERS):
        yield centre(name, batch=batch, size=size, dtype=dtype, per=per), (*OURS, *PEERS[name])
    for name, dtype in itertools.product(PEERS, ("float32", "uint8")):
        yield centre(name, dtype=dtype), (*OURS, *DOORS)
    for dtype, per in itertools.product(("float32", "uint8"), PERS):
        for r in range(6):
            yield centre("rmg", level=r, dtype=dtype, per=per), OURS
        for n in (1, 2, 4, 7, 8, 14, 16):  # those that divide 448
            yield centre("jigsaw", level=n, dtype=dtype, per=per), OURS
    for name, per in itertools.product(("rmg", "jigsaw", "cutmix"), PERS):
        yield centre(name, task="pipeline", per=per), (*OURS, "kornia", "torchvision", "dali")
    for name, batch, per in itertools.product(PEERS, (32, 256), PERS):
        yield centre(name, task="draw", batch=batch, per=per), ("ours",)


def _list_product() -> _Plan:
    """Every combination of the axes, for ours and the copy."""
    for name, batch, size, dtype in itertools.product(PEERS, BATCHES, SIZES, DTYPES):
        for layout, per in itertools.product(LAYOUTS, PERS):
            yield centre(name, batch=batch, size=size, dtype=dtype, layout=layout, per=per), OURS


def _input_of(case: Case) -> tuple[object, ...]:
    return case.task, case.batch, case.size, case.dtype, case.layout
