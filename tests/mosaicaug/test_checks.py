"""Checks of arguments: what is refused, with the caller's name and the value, and what is not."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from mosaicaug import (
    Augmentation,
    CutMix,
    Jigsaw,
    MixUp,
    Plan,
    RecursiveMosaic,
    SnapMix,
    Targets,
    apply,
    checks,
)

IMAGES, LABELS = torch.rand(4, 3, 16, 16), torch.arange(4)


MIXING: list[Augmentation] = [CutMix(), MixUp(), SnapMix(cam=lambda images, _: images.mean(1))]


EVERY: list[Augmentation] = [RecursiveMosaic(2), Jigsaw(4), *MIXING]


def name_of(value: object) -> str:
    return type(value).__name__


@pytest.mark.parametrize("value", [1.0, "1", None, True])
def test_integers_are_integers(value: object) -> None:
    with pytest.raises(TypeError, match=rf"^Caller: n must be an integer, got {value!r}$"):
        checks.check_integer("Caller", "n", value, 0)
    with pytest.raises(ValueError, match=r"^Caller: n must be at least 2, got 1$"):
        checks.check_integer("Caller", "n", 1, 2)
    checks.check_integer("Caller", "n", 2, 2)


def test_choices_are_those_of_a_literal() -> None:
    checks.check_choice("Caller", "kind", "two", Literal["one", "two"])
    with pytest.raises(ValueError, match=r"^Caller: kind must be one of \('one', 'two'\), got 'three'$"):
        checks.check_choice("Caller", "kind", "three", Literal["one", "two"])


def test_images_are_tensors() -> None:
    with pytest.raises(TypeError, match=r"^Caller: images must be a tensor .*, got list; make one with torch.stack"):
        checks.check_images("Caller", [1.0])  # type: ignore[arg-type]


def test_labels_fit_the_batch() -> None:
    for fine in (torch.arange(3), torch.arange(3, dtype=torch.uint8), torch.rand(3, 5)):
        checks.check_labels("Caller", fine, 3, 5)
    for wrong, message in [
        (torch.arange(4), "3 images need 3 labels, got 4"),
        (torch.zeros(3, dtype=torch.bool), r"labels must be integer \[B\] or float \[B, K\], got torch.bool"),
        (torch.rand(3), r"labels must be integer .* got torch.float32 \[3\]"),
        (torch.rand(3, 6), "num_classes=5, but the soft labels have 6 classes"),
        (torch.tensor([0, 5, 1]), r"num_classes=5 needs labels in 0..4, got 0..5"),
    ]:
        with pytest.raises(ValueError, match=rf"^Caller: {message}"):
            checks.check_labels("Caller", wrong, 3, 5)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32, torch.int64, torch.bool, torch.complex64])
def test_images_of_an_unsupported_dtype(dtype: torch.dtype) -> None:
    images = torch.zeros(4, 3, 16, 16, dtype=dtype)
    for aug in EVERY:
        with pytest.raises(ValueError, match=rf"{dtype}"):
            aug(images, LABELS, maps=torch.rand(4, 2, 2))
    with pytest.raises(ValueError, match=rf"apply.*uint8.*{dtype}"):
        apply(images, Plan.identity(4, (16, 16)))


def test_num_classes_missing_or_too_small() -> None:
    targets = Targets(torch.tensor([5, 0]), torch.tensor([0, 5]), torch.ones(2), torch.zeros(2))
    with pytest.raises(ValueError, match=r"to_soft.*num_classes.*None"):
        targets.to_soft(None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"to_soft.*num_classes=5.*5"):
        targets.to_soft(5)
    for aug in (CutMix(num_classes=3), MixUp(num_classes=3)):
        with pytest.raises(ValueError, match=rf"{name_of(aug)}.*num_classes=3.*3"):
            aug(IMAGES, LABELS)
        with pytest.raises(ValueError, match=rf"{name_of(aug)}.*num_classes=3.*-1"):
            aug(IMAGES, LABELS - 1)
        with pytest.raises(ValueError, match=rf"{name_of(aug)}.*num_classes=3.*10"):
            aug(IMAGES, torch.rand(4, 10))
    with pytest.raises(ValueError, match=r"CutMix.*num_classes.*0"):
        CutMix(num_classes=0)


def test_integer_labels_of_several_classes_are_no_labels() -> None:
    with pytest.raises(
        ValueError, match=r"got torch.int64 \[2, 2\]; pass several classes of one image as labels.float"
    ):
        checks.check_labels("Caller", torch.ones(2, 2, dtype=torch.int64), 2, None)
    with pytest.raises(ValueError, match=r"got torch.int64 \[2, 1, 1\]$"):
        checks.check_labels("Caller", torch.ones(2, 1, 1, dtype=torch.int64), 2, None)


def test_kept_labels_are_one_per_image_of_any_kind() -> None:
    for kept in (["a", "b"], np.arange(2), torch.ones(2, 5)):
        checks.check_kept_labels("Caller", kept, 2)
    for masks, got in ((torch.ones(2, 3, 4), r"\[2, 3, 4\]"), ({"boxes": []}, "a dict")):
        with pytest.raises(TypeError, match=rf"^Caller: labels must be one per image, got {got}; masks"):
            checks.check_kept_labels("Caller", masks, 2)
    wrong: list[tuple[Any, str]] = [(np.array(7), r"array\(7\)"), ("ab", "'ab'"), ([1], "1")]
    for labels, counted in wrong:
        with pytest.raises(ValueError, match=rf"^Caller: 2 images need 2 labels, got {counted}$"):
            checks.check_kept_labels("Caller", labels, 2)


def test_values_within_a_transform_are_seen() -> None:
    seen = list[bool]()

    def look(value: Tensor) -> Tensor:
        seen.extend([checks.is_transformed(None, value), checks.can_read(value)])
        return value

    torch.func.vmap(look)(torch.rand(2, 3))
    assert seen == [True, False]
    assert checks.is_transformed(None, torch.rand(2)) is False


def test_sums_are_exact_where_a_device_can() -> None:
    kinds = {"cpu": torch.float64, "cuda": torch.float64, "mps": torch.float32, "meta": torch.float32}
    assert {kind: checks.exact_dtype(torch.device(kind)) for kind in kinds} == kinds


@pytest.mark.parametrize(
    ("labels", "one_hot"),
    [
        ([[0, 1], [1, 0]], True),
        ([[False, True], [True, False]], True),
        ([[0, 2], [2, 0]], False),
        ([[1, 1], [1, 0]], False),
        ([[1, -1], [1, 0]], False),
        ([[0, 0], [1, 0]], False),
        ([[1], [1]], False),
        ([0, 1], False),
        ([[[0, 1]], [[1, 0]]], False),
        ([[0.0, 1.0], [1.0, 0.0]], False),
    ],
    ids=str,
)
def test_one_hot_labels_have_a_single_one(labels: list[Any], one_hot: bool) -> None:
    assert checks._is_one_hot(torch.tensor(labels), 2) is one_hot
