"""The sides of every task, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from bench import dali, doors, loops, ours, peers
from bench.cases import Case
from bench.inputs import Batch
from bench.ours import Run

SIDES: dict[str, dict[str, Callable[[Case, Batch], Run]]] = {
    "augment": {
        "ours": ours.make_ours,
        "ours_out": ours.make_ours_out,
        "copy": ours.make_copy,
        "kornia": peers.make_kornia,
        "torchvision": peers.make_torchvision,
        "timm": peers.make_timm,
        "dali": dali.make_dali,
        "loop": loops.make_loop,
        "torchvision_door": doors.make_torchvision_door,
        "timm_door": doors.make_timm_door,
        "kornia_door": doors.make_kornia_door,
    },
    "pipeline": {
        "ours": ours.make_pipeline,
        "ours_out": ours.make_pipeline_out,
        "copy": ours.make_pipeline_copy,
        "kornia": peers.make_kornia_pipeline,
        "torchvision": peers.make_torchvision_pipeline,
        "dali": dali.make_dali_pipeline,
    },
    "draw": {"ours": ours.make_draw},
}


def make_run(case: Case, side: str, batch: Batch) -> Run:
    """A call of ``side`` on ``batch``; `UnfitError` where the side cannot run the case."""
    return SIDES[case.task][side](case, batch)


def read_images(result: Any) -> Tensor:
    """The images in what a call returned."""
    first = result[0] if isinstance(result, tuple | list) else result
    return first if isinstance(first, Tensor) else dali.read_images(first)
