"""Our sides: the augmentation of a case, its windows, its plan in bytes, and a copy of as many bytes."""

from __future__ import annotations

import pytest
import torch

from bench.throughput.batch import add_labels
from bench.throughput.cases import PEERS, centre
from bench.throughput.sides import ours
from mosaicaug import CutMix, Jigsaw, MixUp, RecursiveMosaic, SnapMix


def test_augmentations_are_those_of_the_case() -> None:
    kinds = {name: type(ours.make_augmentation(centre(name))) for name in PEERS}
    assert kinds == {"rmg": RecursiveMosaic, "jigsaw": Jigsaw, "cutmix": CutMix, "mixup": MixUp, "snapmix": SnapMix}
    mosaic = ours.make_augmentation(centre("rmg", level=2, per="batch"))
    assert isinstance(mosaic, RecursiveMosaic)
    assert (mosaic.r, mosaic.per) == (2, "batch")


def test_windows_lie_in_the_stored_image() -> None:
    case = centre("rmg", task="pipeline", batch=256, size=28)
    window = ours.draw_window(case, torch.empty(1, 3, 32, 32))
    assert window.dtype == torch.int64
    assert window.amin(0).tolist() == [0, 0, 0]
    assert window.amax(0).tolist() == [4, 4, 1]  # 256 draws of 5 positions and 2 flips reach every end


def test_a_plan_has_the_bytes_of_its_tensors() -> None:
    small, large = (ours.count_plan_bytes(centre("cutmix", batch=batch)) for batch in (32, 64))
    assert 0 < small < large <= 2 * small


@pytest.mark.parametrize("task", ["augment", "pipeline"])
def test_the_copy_moves_as_many_bytes_as_the_case(task: str) -> None:
    case = centre("rmg", task=task, batch=2, size=14)
    make = {"augment": ours.make_copy, "pipeline": ours.make_pipeline_copy}[task]
    images = torch.zeros(2, 3, 14, 14, dtype=torch.float32 if task == "augment" else torch.uint8)
    copied = make(case, add_labels(images, 2))()
    assert 2 * copied.nbytes == case.bytes
