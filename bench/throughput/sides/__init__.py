"""Sides of every task by name: ours, the copy, and other libraries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from bench.measure import Run
from bench.throughput.batch import Batch
from bench.throughput.cases import Case
from bench.throughput.sides import adapters, dali, libraries, loops, ours

SIDES: dict[str, dict[str, Callable[[Case, Batch], Run]]] = {
    "augment": {
        "ours": ours.make_ours,
        "ours_out": ours.make_ours_out,
        "copy": ours.make_copy,
        "kornia": libraries.make_kornia,
        "torchvision": libraries.make_torchvision,
        "timm": libraries.make_timm,
        "dali": dali.make_dali,
        "loop": loops.make_loop,
        "torchvision_door": adapters.make_torchvision_door,
        "timm_door": adapters.make_timm_door,
        "kornia_door": adapters.make_kornia_door,
    },
    "pipeline": {
        "ours": ours.make_pipeline,
        "ours_out": ours.make_pipeline_out,
        "copy": ours.make_pipeline_copy,
        "kornia": libraries.make_kornia_pipeline,
        "torchvision": libraries.make_torchvision_pipeline,
        "dali": dali.make_dali_pipeline,
    },
    "draw": {"ours": ours.make_draw},
}


def make_run(case: Case, side: str, batch: Batch) -> Run:
    """Call of ``side`` on ``batch``; raises `UnfitError` if the side cannot run the case."""
    return SIDES[case.task][side](case, batch)


def read_images(result: Any) -> Tensor:
    """Images ``[B, 3, H, W]`` in the result of a call."""
    first = result[0] if isinstance(result, tuple | list) else result
    return first if isinstance(first, Tensor) else dali.read_images(first)
