"""What is refused, with whose name and which value, before anything is drawn or written."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from mosaicaug import (
    Augmentation,
    Compose,
    CutMix,
    Jigsaw,
    MixUp,
    OneOf,
    Plan,
    RecursiveMosaic,
    SnapMix,
    Targets,
    apply,
    class_activation_map,
    cross_entropy,
    mix_labels,
)

IMAGES, LABELS = torch.rand(4, 3, 16, 16), torch.arange(4)
MIXING: list[Augmentation] = [CutMix(), MixUp(), SnapMix(cam=lambda images, _: images.mean(1))]
EVERY: list[Augmentation] = [RecursiveMosaic(2), Jigsaw(4), *MIXING]


def name_of(value: object) -> str:
    return type(value).__name__


@pytest.mark.parametrize("r", [-1, -7])
def test_r_below_0(r: int) -> None:
    with pytest.raises(ValueError, match=rf"RecursiveMosaic.*\br\b.*{r}"):
        RecursiveMosaic(r)
    with pytest.raises(ValueError, match=rf"RecursiveMosaic.*\br\b.*{r}"):
        RecursiveMosaic.phases(IMAGES, r)


@pytest.mark.parametrize("value", [2.0, 1.5, "3", None, True])
def test_r_or_n_that_is_no_integer(value: Any) -> None:
    with pytest.raises(TypeError, match=rf"RecursiveMosaic.*\br\b.*{value}"):
        RecursiveMosaic(value)
    with pytest.raises(TypeError, match=rf"Jigsaw.*\bn\b.*{value}"):
        Jigsaw(value)


@pytest.mark.parametrize("n", [0, -2])
def test_n_below_1(n: int) -> None:
    with pytest.raises(ValueError, match=rf"Jigsaw.*\bn\b.*{n}"):
        Jigsaw(n)


@pytest.mark.parametrize("make", [RecursiveMosaic, Jigsaw, CutMix, MixUp, SnapMix])
def test_options_outside_their_range(make: Any) -> None:
    for p in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match=rf"{make.__name__}.*\bp\b.*{p}"):
            make(p=p)
    with pytest.raises(ValueError, match=rf"{make.__name__}.*per.*image"):
        make(per="image")


def test_choices_that_do_not_exist() -> None:
    for make in (RecursiveMosaic, Jigsaw):
        with pytest.raises(ValueError, match=rf"{make.__name__}.*permutation.*sattolo"):
            make(permutation="sattolo")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"RecursiveMosaic.*chain.*linked"):
        RecursiveMosaic.phases(IMAGES, 2, chain="linked")  # type: ignore[arg-type]


@pytest.mark.parametrize("alpha", [0, -1.0, float("nan"), float("inf")])
def test_alpha_not_above_0(alpha: float) -> None:
    for make, name in ((CutMix, "alpha"), (MixUp, "alpha"), (SnapMix, "beta")):
        with pytest.raises(ValueError, match=rf"{make.__name__}.*{name}.*{alpha}"):
            make(alpha)


def test_images_smaller_than_the_grid() -> None:
    with pytest.raises(ValueError, match=r"RecursiveMosaic.*8x8.*16x7"):
        RecursiveMosaic(3)(torch.rand(2, 3, 16, 7))
    with pytest.raises(ValueError, match=r"Jigsaw.*5x5.*4x16"):
        Jigsaw(5).sample((2, 3, 4, 16))
    with pytest.raises(ValueError, match=r"RecursiveMosaic.*16x16.*8x8"):
        RecursiveMosaic.phases(torch.rand(2, 3, 8, 8), 4)


@pytest.mark.parametrize("aug", EVERY, ids=name_of)
@pytest.mark.parametrize("shape", [(16, 16), (4, 1, 1, 3, 16, 16), (16,), ()])
def test_images_of_a_wrong_rank(aug: Augmentation, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=rf"{name_of(aug)}.*images.*\[{', '.join(map(str, shape))}\]"):
        aug.sample(shape)
    if not aug.mixes and shape:
        with pytest.raises(ValueError, match=rf"{name_of(aug)}.*images.*\[{', '.join(map(str, shape))}\]"):
            aug(torch.zeros(shape))


def test_a_single_image_has_no_partner() -> None:
    for aug in MIXING:
        with pytest.raises(ValueError, match=rf"{name_of(aug)}.*images.*\[3, 16, 16\]"):
            aug(IMAGES[0], LABELS[:3], maps=torch.rand(3, 2, 2))
    with pytest.raises(ValueError, match=r"apply.*images.*\[3, 16, 16\]"):
        apply(IMAGES[0], Plan.identity(3, (16, 16)))


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32, torch.int64, torch.bool, torch.complex64])
def test_images_of_an_unsupported_dtype(dtype: torch.dtype) -> None:
    images = torch.zeros(4, 3, 16, 16, dtype=dtype)
    for aug in EVERY:
        with pytest.raises(ValueError, match=rf"{dtype}"):
            aug(images, LABELS, maps=torch.rand(4, 2, 2))
    with pytest.raises(ValueError, match=rf"apply.*uint8.*{dtype}"):
        apply(images, Plan.identity(4, (16, 16)))


@pytest.mark.parametrize("aug", [*MIXING, Compose([Jigsaw(2), CutMix()]), OneOf([Jigsaw(2), MixUp()])], ids=name_of)
def test_labels_missing_or_of_another_batch(aug: Augmentation) -> None:
    with pytest.raises(ValueError, match=rf"{name_of(aug)}.*labels"):
        aug(IMAGES)
    for labels in (torch.arange(3), torch.rand(5, 10)):
        with pytest.raises(ValueError, match=rf"{name_of(aug)}.*4.*{len(labels)}"):
            aug(IMAGES, labels)
    for labels in (torch.zeros(4, 1, dtype=torch.int64), torch.rand(4), torch.tensor(1), torch.ones(4).bool()):
        with pytest.raises(ValueError, match=rf"{name_of(aug)}.*labels.*{labels.dtype}"):
            aug(IMAGES, labels)


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


def test_maps_missing_or_of_another_batch() -> None:
    with pytest.raises(ValueError, match=r"SnapMix.*maps"):
        SnapMix()(IMAGES, LABELS)
    for maps in (torch.rand(3, 2, 2), torch.rand(4, 1, 2, 2)):
        with pytest.raises(ValueError, match=rf"SnapMix.*maps.*\[{', '.join(map(str, maps.shape))}\]"):
            SnapMix()(IMAGES, LABELS, maps=maps)
        with pytest.raises(ValueError, match=r"mix_labels.*maps"):
            mix_labels(SnapMix().sample(IMAGES.shape), LABELS, maps=maps)
    with pytest.raises(ValueError, match=r"class_activation_map.*3"):
        class_activation_map(torch.rand(4, 8, 2, 2), torch.rand(10, 8), None, torch.arange(3))


def test_a_plan_for_another_batch_or_size() -> None:
    with pytest.raises(ValueError, match=r"apply.*5.*4"):
        apply(IMAGES, Plan.identity(5, (16, 16)))
    with pytest.raises(ValueError, match=r"apply.*16, 8.*16, 16"):
        apply(IMAGES, Plan.identity(4, (16, 8)))
    with pytest.raises(ValueError, match=r"mix_labels.*5.*4"):
        mix_labels(Plan.identity(5, (16, 16)), LABELS)


def test_out_that_overlaps_the_input() -> None:
    plan = Plan.identity(4, (16, 16))
    memory = torch.rand(6, 3, 16, 16)
    for images, out in [
        (memory[:4], memory[:4]),
        (memory[:4], memory[1:5]),
        (memory[1:5], memory[:4]),
        (memory[:4], memory.flatten()[384 : 384 + 4 * 768].view(4, 3, 16, 16)),
    ]:
        before = memory.clone()
        with pytest.raises(ValueError, match=r"apply.*out.*memory"):
            apply(images, plan, out=out)
        assert torch.equal(memory, before)
    memory = torch.rand(8, 3, 16, 16)  # neighbours in one storage do not overlap
    assert torch.equal(apply(memory[:4], plan, out=memory[4:]), memory[:4])


def test_out_that_would_lose_gradients() -> None:
    images, plan, out = IMAGES.clone().requires_grad_(), Plan.identity(4, (16, 16)), torch.zeros_like(IMAGES)
    with pytest.raises(ValueError, match=r"apply.*out.*gradients"):
        apply(images, plan, out=out)
    with pytest.raises(ValueError, match=r"apply.*out.*gradients"):
        apply(IMAGES, plan, out=torch.zeros_like(IMAGES, requires_grad=True))
    with torch.no_grad():
        assert torch.equal(apply(images, plan, out=out), IMAGES)


APPLY: dict[str, tuple[dict[str, Any], str]] = {
    "out of another shape": ({"out": torch.zeros(4, 3, 16, 15)}, r"out.*16, 15"),
    "out of another dtype": ({"out": torch.zeros(4, 3, 16, 16), "dtype": torch.float16}, r"out.*float16.*float32"),
    "out that is not contiguous": ({"out": torch.zeros(4, 3, 16, 32)[..., ::2]}, r"out must be contiguous.*1536.*2"),
    "out of another layout": (
        {"out": torch.zeros(4, 3, 16, 16), "memory_format": torch.channels_last},
        r"out.*channels_last",
    ),
    "dtype": ({"dtype": torch.int32}, r"dtype.*int32"),
    "memory format": ({"memory_format": torch.preserve_format}, r"memory_format.*preserve"),
    "backend": ({"backend": "cupy"}, r"backend.*cupy"),
    "mean of another length": ({"mean": [0.0, 1.0]}, r"mean.*3.*2"),
    "std of another length": ({"std": [1.0] * 4}, r"std.*3.*4"),
    "std of 0": ({"std": [1.0, 0.0, 1.0]}, r"std.*0"),
    "index of another length": ({"index": torch.arange(3)}, r"index.*4.*3"),
    "index past the images": ({"index": torch.tensor([0, 1, 2, 4])}, r"index.*4"),
    "index below 0": ({"index": torch.tensor([0, 1, 2, -1])}, r"index.*-1"),
    "index of floats": ({"index": torch.zeros(4)}, r"index.*float32"),
    "window of another shape": ({"window": torch.zeros(4, 2, dtype=torch.int64)}, r"window.*4, 2"),
    "window past the image": ({"window": torch.tensor([[0, 1, 0]] * 4)}, r"window.*1"),
    "window below 0": ({"window": torch.tensor([[-1, 0, 0]] * 4)}, r"window.*-1"),
    "window of floats": ({"window": torch.zeros(4, 3)}, r"window.*float32"),
}


@pytest.mark.parametrize(("options", "message"), APPLY.values(), ids=APPLY.keys())
def test_options_of_apply_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"apply.*{message}"):
        apply(IMAGES, Plan.identity(4, (16, 16)), **options)


def test_windows_larger_than_the_images() -> None:
    with pytest.raises(ValueError, match=r"apply.*17, 16.*16, 16"):
        apply(IMAGES, Plan.identity(4, (17, 16)), window=torch.zeros(4, 3, dtype=torch.int64))


def test_members_that_do_not_fit_together() -> None:
    for members in ([CutMix(), Jigsaw(2)], [CutMix(), MixUp()]):
        with pytest.raises(ValueError, match=r"Compose.*last"):
            Compose(members)
    for make in (Compose, OneOf):
        with pytest.raises(ValueError, match=rf"{make.__name__}"):
            make([])
        with pytest.raises(ValueError, match=rf"{make.__name__}.*Identity"):
            make([torch.nn.Identity()])  # type: ignore[list-item]
    for weights in ([1.0], [1.0, -1.0], [0.0, 0.0], [1.0, float("nan")]):
        with pytest.raises(ValueError, match=r"OneOf.*2.*weights"):
            OneOf([Jigsaw(2), CutMix()], weights=weights)
    with pytest.raises(ValueError, match=r"OneOf.*num_classes"):
        OneOf([CutMix(num_classes=3), MixUp()])


def test_reductions_that_do_not_exist() -> None:
    targets = Targets(LABELS, LABELS, torch.ones(4), torch.zeros(4))
    with pytest.raises(ValueError, match=r"cross_entropy.*reduction.*median"):
        cross_entropy(torch.rand(4, 4), targets, reduction="median")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
@pytest.mark.parametrize("aug", EVERY, ids=name_of)
def test_a_generator_on_another_device(aug: Augmentation) -> None:
    with pytest.raises(ValueError, match=rf"{name_of(aug)}.*CPU.*cuda"):
        aug.sample(IMAGES.shape, generator=torch.Generator("cuda"))


REFUSED: dict[str, tuple[Augmentation, Callable[[], tuple[Tensor, Tensor | None]]]] = {
    "dtype": (CutMix(), lambda: (IMAGES.int(), LABELS)),
    "dtype, tiles": (Jigsaw(2), lambda: (IMAGES.int(), None)),
    "rank": (CutMix(), lambda: (IMAGES[0], LABELS[:3])),
    "size": (Jigsaw(17), lambda: (IMAGES, None)),
    "size inside Compose": (Compose([Jigsaw(2), Jigsaw(17)]), lambda: (IMAGES, None)),
    "labels": (MixUp(), lambda: (IMAGES, LABELS[:3])),
    "classes": (MixUp(num_classes=2), lambda: (IMAGES, LABELS)),
    "maps": (SnapMix(), lambda: (IMAGES, LABELS)),
}


@pytest.mark.parametrize(("aug", "make"), REFUSED.values(), ids=REFUSED.keys())
def test_a_refusal_comes_before_any_draw(aug: Augmentation, make: Callable[[], Any]) -> None:
    aug = pickle.loads(pickle.dumps(aug))
    images, labels = make()
    state = torch.get_rng_state()
    with pytest.raises(ValueError, match=r": "):
        aug(images, labels)
    assert torch.equal(torch.get_rng_state(), state)
    assert aug.last_plan is None
