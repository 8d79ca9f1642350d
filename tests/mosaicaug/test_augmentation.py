"""Augmentations as modules: inputs and outputs, the generator in charge, refusals, and augmentations of one's own."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

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
)
from tests.helpers.oracle import DTYPES, number_pixels, seeded

IMAGES, LABELS = torch.rand(4, 3, 16, 16), torch.arange(4)


MIXING: list[Augmentation] = [CutMix(), MixUp(), SnapMix(cam=lambda images, _: images.mean(1))]


EVERY: list[Augmentation] = [RecursiveMosaic(2), Jigsaw(4), *MIXING]


def name_of(value: object) -> str:
    return type(value).__name__


Make = Callable[[], Augmentation]


FIVE: dict[str, Make] = {
    "RecursiveMosaic": lambda: RecursiveMosaic(2, p=0.7),
    "Jigsaw": lambda: Jigsaw(3, p=0.7),
    "CutMix": lambda: CutMix(p=0.7),
    "MixUp": lambda: MixUp(p=0.7),
    "SnapMix": lambda: SnapMix(p=0.7, cam=lambda images, _: images.flatten(1, -3).float().mean(1)),
}


AUGS: dict[str, Make] = FIVE | {
    "RecursiveMosaic, cyclic": lambda: RecursiveMosaic(3, permutation="cyclic"),
    "CutMix, drawn": lambda: CutMix(true_area=False),
    "Compose": lambda: Compose([RecursiveMosaic(1, p=0.7), Jigsaw(4), CutMix(p=0.7)]),
    "OneOf": lambda: OneOf([RecursiveMosaic(1), Jigsaw(4, p=0.7), CutMix(), MixUp()]),
    "OneOf, per batch": lambda: OneOf([Jigsaw(2), CutMix(), MixUp()], per="batch"),
}


five_augs = pytest.mark.parametrize("make", FIVE.values(), ids=FIVE.keys())


every_aug = pytest.mark.parametrize("make", AUGS.values(), ids=AUGS.keys())


def read_plan(plan: Plan | None, rows: int | None = None, *, partner: bool = True) -> dict[str, Any]:
    """A plan, or its first ``rows``, as numbers that compare."""
    assert plan is not None
    kept = {name: value[:rows] if isinstance(value, list) else value for name, value in plan.to_dict().items()}
    return kept if partner else kept | {"overlay": None}


@every_aug
def test_one_seed_gives_one_plan(make: Make) -> None:
    shape, want = (6, 3, 16, 16), read_plan(make().sample((6, 3, 16, 16), generator=seeded(1)))
    assert read_plan(make().sample(shape, generator=seeded(1))) == want
    assert read_plan(make().sample((6, 8, 1, 16, 16), generator=seeded(1))) == want  # clips
    assert read_plan(make().sample(shape, generator=seeded(2))) != want


@every_aug
def test_the_global_seed_governs_unless_a_generator_is_passed(make: Make) -> None:
    shape, want = (6, 3, 16, 16), read_plan(make().sample((6, 3, 16, 16), generator=seeded(3)))
    state = torch.get_rng_state()
    make().sample(shape, generator=seeded(3))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(3)
    assert read_plan(make().sample(shape)) == want
    assert read_plan(make().sample(shape)) != want


@every_aug
@pytest.mark.parametrize("batch", [6, 40])
def test_an_images_draw_does_not_depend_on_those_that_follow(make: Make, batch: int) -> None:
    few, many = (make().sample((count, 3, 16, 16), generator=seeded(4)) for count in (5, batch))
    assert read_plan(many, 5, partner=False) == read_plan(few, partner=False)


@every_aug
def test_every_device_draws_the_same_plan(make: Make, device: torch.device) -> None:
    aug, labels = make(), torch.arange(6, device=device)
    maps = torch.rand(6, 4, 4, device=device)
    torch.manual_seed(5)
    aug(torch.rand(6, 3, 16, 16).to(device), labels, maps=maps)
    torch.manual_seed(5)
    torch.rand(6, 3, 16, 16)
    assert read_plan(aug.last_plan) == read_plan(make().sample((6, 3, 16, 16)))


@five_augs
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "strided"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("lead", [(5,), (3, 2)], ids=["images", "video"])
def test_images_keep_their_kind(
    make: Make, lead: tuple[int, ...], dtype: torch.dtype, layout: str, device: torch.device
) -> None:
    aug, images = make(), number_pixels((*lead, 2, 8, 11), dtype, layout).to(device)
    before, version = images.clone(), images._version
    got, _ = aug(images, torch.arange(lead[0], device=device))
    assert (got.dtype, got.device, got.shape) == (images.dtype, images.device, images.shape)
    assert (got.stride(-3) == 1) == (layout == "channels_last")
    assert torch.equal(images, before)
    assert images._version == version
    assert aug.last_plan is not None
    assert torch.equal(got, apply(images, aug.last_plan))  # replay


@five_augs
@pytest.mark.parametrize("batch", [0, 1, 7])
def test_batches_of_any_length(make: Make, batch: int) -> None:
    got, targets = make()(torch.rand(batch, 3, 9, 11), torch.arange(batch))
    assert got.shape == (batch, 3, 9, 11)
    assert len(targets[0] if isinstance(targets, Targets) else targets) == batch


def test_tiles_leave_labels_alone_and_take_a_single_image() -> None:
    labels, soft = torch.arange(4), torch.rand(4, 7)
    for aug in (RecursiveMosaic(2), Jigsaw(4), Compose([Jigsaw(2), RecursiveMosaic(1)]), OneOf([Jigsaw(2)])):
        for given in (labels, soft):
            _, got = aug(torch.rand(4, 3, 16, 16), given)
            assert torch.equal(got, given)
        image = number_pixels((3, 16, 16))
        single = aug(image)
        assert single.shape == image.shape
        assert torch.equal(single.flatten().sort().values, image.flatten())
        assert torch.equal(single[1] - single[0], image[1] - image[0])  # channels move together
        moved, label = aug(image, torch.tensor(3))
        assert (moved.shape, int(label)) == (image.shape, 3)


@five_augs
def test_gradients_are_right(make: Make, device: torch.device) -> None:
    plan = make().sample((4, 1, 5, 6), generator=seeded(7))
    images = torch.rand(4, 1, 5, 6, dtype=torch.float64, device=device, requires_grad=True)
    stored = torch.rand(2, 1, 7, 7, dtype=torch.float64, device=device, requires_grad=True)
    window = torch.tensor([[0, 1, 1], [2, 0, 0], [1, 1, 0], [0, 0, 1]])
    index = torch.tensor([1, 0, 1, 1])
    assert torch.autograd.gradcheck(lambda x: apply(x, plan), (images,))
    assert torch.autograd.gradcheck(
        lambda x: apply(x, plan, window=window, index=index, mean=[0.5], std=[0.2]), (stored,)
    )


@every_aug
def test_modules_are_copied_and_pickled(make: Make) -> None:
    aug = make()
    assert isinstance(aug, nn.Module)
    if isinstance(aug, SnapMix):
        aug.cam = None  # a lambda has no name to pickle it by
    for twin in (copy.deepcopy(aug), pickle.loads(pickle.dumps(aug))):
        plans = [one.sample((5, 3, 16, 16), generator=seeded(8)) for one in (aug, twin)]
        assert read_plan(plans[0]) == read_plan(plans[1])


class Swap(Augmentation):
    """An augmentation of one's own: two halves swapped with chance p."""

    grid = 2

    def draw(self, batch: int, size: tuple[int, int], generator: Generator | None) -> Plan:
        chosen = torch.rand(batch, 1, generator=generator) < self.p
        tiles = torch.where(chosen, torch.tensor([1, 0, 3, 2]), torch.arange(4)) + 4 * torch.arange(batch)[:, None]
        return Plan.of_tiles(tiles.int(), size)

    def targets(self, plan: Plan, labels: Tensor, *, maps: Tensor | None = None) -> Tensor:  # noqa: ARG002
        return labels


def test_an_augmentation_of_ones_own_overrides_draw_and_targets() -> None:
    images, labels = number_pixels((6, 2, 8, 8)), torch.arange(6)
    got, targets = Swap(p=1.0, per="sample")(images, labels)
    assert torch.equal(got, images.roll(4, -1))
    assert torch.equal(targets, labels)
    aug = Swap(p=0.5, per="sample")
    assert torch.equal(aug(images, generator=seeded(1)), aug(images, generator=seeded(1)))
    assert aug.last_plan is not None
    assert torch.equal(OneOf([aug, Jigsaw(2)], weights=[1, 0])(images), apply(images, aug.last_plan))


def test_a_base_class_draws_nothing() -> None:
    base = Augmentation(p=1.0, per="sample")
    with pytest.raises(NotImplementedError):
        base.sample((2, 3, 8, 8))
    with pytest.raises(NotImplementedError):
        base.targets(Plan.identity(2, (8, 8)), torch.arange(2))


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


@every_aug
def test_eval_leaves_images_alone_and_gives_the_own_label_all_the_weight(make: Make) -> None:
    aug, state = make(), torch.get_rng_state()
    nn.Sequential(aug).eval()
    images, targets = aug(IMAGES, LABELS)
    assert images is IMAGES
    assert aug(IMAGES) is IMAGES
    assert torch.equal(torch.get_rng_state(), state)  # nothing is drawn
    soft = targets.to_soft(4) if isinstance(targets, Targets) else F.one_hot(targets, 4).float()
    assert torch.equal(soft, torch.eye(4))
    plan = aug.last_plan
    assert plan is not None
    assert torch.equal(apply(IMAGES, plan), IMAGES)
    assert torch.equal(apply(IMAGES, aug.sample(IMAGES.shape)), IMAGES)
    assert type(targets) is type(aug.train()(IMAGES, LABELS)[1])
    assert not torch.equal(make()(IMAGES, LABELS)[0], IMAGES)


@every_aug
def test_eval_refuses_what_training_refuses(make: Make) -> None:
    aug = make().eval()
    with pytest.raises(ValueError, match="4 images need 4 labels, got 3"):
        aug(IMAGES, LABELS[:3])
    with pytest.raises(ValueError, match="images must be"):
        aug(IMAGES[0, 0], LABELS)


def test_eval_of_phases_and_of_what_is_compiled_and_exported() -> None:
    torch.compiler.reset()
    model = nn.Sequential(RecursiveMosaic(2), nn.Identity())
    assert not torch.equal(model(IMAGES), IMAGES)
    model.eval()
    assert all(torch.equal(phase, IMAGES) for phase in RecursiveMosaic(2).eval().phases(IMAGES))
    assert torch.equal(torch.compile(model, fullgraph=True, backend="aot_eager")(IMAGES), IMAGES)
    assert torch.equal(torch.export.export(model, (IMAGES,)).module()(IMAGES), IMAGES)
    assert not torch.equal(model.train()(IMAGES), IMAGES)


def test_one_of_and_class_activation_maps_in_eval() -> None:
    """No map is asked for, and targets follow from a plan that was drawn in eval mode."""
    aug = OneOf([SnapMix(), CutMix()]).eval()
    assert torch.equal(aug(IMAGES, LABELS)[1].weight_a, torch.ones(4))
    mix = OneOf([CutMix(), MixUp()]).eval()
    targets = mix.targets(mix.sample(IMAGES.shape), LABELS)
    assert isinstance(targets, Targets)
    assert torch.equal(targets.weight_a, torch.ones(4))


@pytest.mark.parametrize("aug", MIXING, ids=name_of)
def test_labels_of_every_form_are_mixed_alike(aug: Augmentation) -> None:
    labels: Any
    want = aug(IMAGES, LABELS, generator=seeded(1))[1]
    for labels in ([0, 1, 2, 3], (0, 1, 2, 3), LABELS.numpy(), np.arange(4, dtype=np.uint16), list(LABELS)):
        got = aug(IMAGES, labels, generator=seeded(1))[1]
        assert all(torch.equal(*pair) for pair in zip(want, got, strict=True))
    soft = aug(IMAGES, torch.eye(4), generator=seeded(1))[1]
    for labels in (F.one_hot(LABELS, 4), F.one_hot(LABELS, 4).bool(), np.eye(4, dtype=int), torch.eye(4).tolist()):
        assert torch.equal(aug(IMAGES, labels, generator=seeded(1))[1], soft)


@pytest.mark.parametrize("aug", MIXING, ids=name_of)
@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (list("abcd"), TypeError, "labels must be a tensor, an array or a list of numbers, got list"),
        ([None] * 4, TypeError, "labels must be a tensor, an array or a list of numbers, got list"),
        ({"labels": LABELS}, TypeError, "labels must be a tensor, an array or a list of numbers, got dict"),
        (torch.tensor([[1, 1, 0]] * 4), ValueError, r"pass several classes of one image as labels.float\(\)"),
        (torch.tensor([[0], [1], [0], [1]]), ValueError, r"labels must be integer \[B\] or float"),
        (Targets(LABELS, LABELS, torch.ones(4), torch.zeros(4)), ValueError, "give num_classes= to both"),
    ],
)
def test_labels_that_cannot_be_mixed(aug: Augmentation, labels: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=rf"^{name_of(aug)}: .*{message}"):
        aug(IMAGES, labels)


def test_tiles_give_back_labels_of_any_kind() -> None:
    aug: Any
    for aug in (Jigsaw(2), Compose([Jigsaw(2), RecursiveMosaic(1)])):
        mixed = CutMix()(IMAGES, LABELS)[1]
        for labels in ([3, 1, 2, 0], list("abcd"), LABELS.numpy(), F.one_hot(LABELS), torch.rand(4, 2) > 1, mixed):
            assert aug(IMAGES, labels)[1] is labels
        assert aug(IMAGES[0], 3)[1] == 3
        for labels in ({"boxes": torch.zeros(4, 4)}, torch.zeros(4, 2, 4)):
            with pytest.raises(TypeError, match=r"would not follow the pixels: use mosaicaug.torchvision.V2Transform"):
                aug(IMAGES, labels)
        for labels in ([1, 2, 3], "abcd", 3, torch.tensor(3)):
            with pytest.raises(ValueError, match="4 images need 4 labels, got "):
                aug(IMAGES, labels)
        with pytest.raises(TypeError, match="would not follow"):
            aug(IMAGES[0], {"boxes": torch.zeros(1, 4)})


def test_arguments_of_another_kind_are_refused_in_one_line() -> None:
    aug: Any = CutMix()
    calls: list[tuple[Callable[[], Any], str]] = [
        (lambda: aug(IMAGES.numpy(), LABELS), "CutMix: images must be a tensor .*, got ndarray; make one with"),
        (lambda: aug(list(IMAGES), LABELS), "CutMix: images must be a tensor .*, got list; make one with"),
        (lambda: RecursiveMosaic.phases(IMAGES.numpy()), "RecursiveMosaic.phases: images must be a tensor"),
        (lambda: aug.sample(IMAGES), "CutMix: plans are drawn for a shape, got a tensor; pass images.shape"),
        (lambda: aug(IMAGES, LABELS, generator=3), "CutMix: generator must be a torch.Generator, got int"),
        (lambda: RecursiveMosaic(1).phases(IMAGES, generator=3), "RecursiveMosaic: generator must be a torch"),
        (lambda: Compose(CutMix()), "Compose: needs a list of augmentations, got CutMix"),  # type: ignore[arg-type]
        (lambda: SnapMix()(IMAGES, LABELS, maps=[1]), "SnapMix: needs class activation maps .* got list"),
    ]
    for call, message in calls:
        with pytest.raises((TypeError, ValueError), match=rf"^{message}"):
            call()


def test_a_plan_numbers_fewer_than_two_billion_tiles() -> None:
    with pytest.raises(ValueError, match=r"fewer than 2\*\*31 tiles, got 128 x 16777216"):
        Jigsaw(4096).sample((128, 3, 4096, 4096))


def test_collate_makes_a_batch_and_augments_it() -> None:
    samples = [(image, int(label)) for image, label in zip(IMAGES, LABELS, strict=True)]
    torch.manual_seed(1)
    made, targets = CutMix().collate(samples)
    want = CutMix()(IMAGES, LABELS, generator=seeded(1))
    assert torch.equal(made, want[0])
    assert all(torch.equal(*pair) for pair in zip(targets, want[1], strict=True))
    assert Jigsaw(2).collate(list(IMAGES)).shape == IMAGES.shape


def test_a_draw_of_ones_own_lies_on_the_cpu_whatever_the_default_device() -> None:
    class Swap(Augmentation):
        def draw(self, batch: int, size: tuple[int, int], generator: Generator | None) -> Plan:
            tiles = torch.tensor([1, 0, 3, 2]) + 4 * torch.arange(batch)[:, None]
            return Plan.of_tiles(tiles.int() * int(torch.rand(1, generator=generator) < 2), size)

    with torch.device("meta"):
        assert Swap(p=1.0, per="sample")(IMAGES).device.type == "cpu"


def test_maps_reach_an_augmentation_that_weighs_labels_by_them() -> None:
    seen: list[torch.Tensor | None] = []

    class Weighed(CutMix):
        def targets(self, plan: Plan, labels: torch.Tensor, *, maps: torch.Tensor | None = None) -> Any:
            seen.append(maps)
            return super().targets(plan, labels)

    maps = torch.rand(4, 2, 2)
    Weighed()(torch.rand(4, 3, 8, 8), torch.arange(4), maps=maps)
    Weighed()(torch.rand(4, 3, 8, 8), torch.arange(4))
    assert seen[0] is maps
    assert seen[1] is None


def test_plans_have_one_tile_unless_an_augmentation_says_more() -> None:
    for aug in (CutMix(), MixUp(), SnapMix()):
        assert aug.grid == aug.sample((2, 1, 8, 8)).grid == 1


def test_choices_lie_on_the_cpu_whatever_the_default_device() -> None:
    one_of = OneOf([CutMix(), Jigsaw(2)])
    for training in (True, False):
        aug = Compose([one_of]).train(training)
        with torch.device("meta"):
            aug.sample((3, 1, 8, 8))
        assert one_of.last_choice is not None
        assert (one_of.last_choice.device.type, one_of.last_choice.shape) == ("cpu", (3,))
