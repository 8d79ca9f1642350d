"""Kornia's conventions hold for ours, in its containers too, and pixels, labels and annotations are those of ours."""

from __future__ import annotations

import copy
import importlib
import pickle
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from mosaicaug import Augmentation, CutMix, Jigsaw, MixUp, RecursiveMosaic, SnapMix, Targets, apply, apply_masks
from tests.helpers.oracle import DTYPES, number_pixels

pytest.importorskip("kornia")
import kornia.augmentation as K
from kornia.geometry.boxes import Boxes

from mosaicaug.kornia import (
    AugmentationSequential,
    RandomCutMix,
    RandomJigsaw,
    RandomMixUp,
    RandomRecursiveMosaic,
    RandomSnapMix,
)
from tests.helpers.kornia_calls import KEYS, Make, call_seeded, same, see_all


def make_snapmix(**options: Any) -> RandomSnapMix:
    return RandomSnapMix(cam=see_all, **options)


OPERATIONS: dict[str, tuple[Make, Callable[..., Augmentation]]] = {
    "RandomRecursiveMosaic": (lambda **kw: RandomRecursiveMosaic(3, **kw), lambda **kw: RecursiveMosaic(3, **kw)),
    "RandomJigsaw": (RandomJigsaw, Jigsaw),
    "RandomCutMix": (RandomCutMix, CutMix),
    "RandomMixUp": (RandomMixUp, MixUp),
    "RandomSnapMix": (make_snapmix, lambda **kw: SnapMix(cam=see_all, **kw)),
}
each = pytest.mark.parametrize(("make", "make_ours"), OPERATIONS.values(), ids=OPERATIONS)
each_alone = pytest.mark.parametrize("make", [make for make, _ in OPERATIONS.values()], ids=OPERATIONS)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", DTYPES)
@each
def test_the_same_seed_gives_the_same_pixels(
    make: Make, make_ours: Make, dtype: torch.dtype, layout: torch.memory_format
) -> None:
    images, labels = (255 * torch.rand(4, 3, 33, 24)).to(dtype).contiguous(memory_format=layout), torch.arange(4)
    want, targets = call_seeded(lambda: make_ours()(images, labels))
    state = torch.get_rng_state()
    got = {
        "alone": call_seeded(lambda: make()(images, labels, data_keys=KEYS)),
        "Kornia's": [call_seeded(lambda: K.AugmentationSequential(make(data_keys=["input"]))(images)), targets],
        "images": [call_seeded(lambda: K.ImageSequential(make(data_keys=["input"]))(images)), targets],
        "ours": call_seeded(lambda: AugmentationSequential(make(), data_keys=KEYS)(images, labels)),
    }
    assert torch.equal(torch.get_rng_state(), state)  # and nothing else was drawn
    for place, (made, labelled) in got.items():
        assert same(made, want), place
        assert (made.stride(), made.device) == (want.stride(), want.device)
        assert same(labelled, targets)
        assert isinstance(labelled, Targets) == isinstance(targets, Targets)


@pytest.mark.parametrize(
    ("operation", "ours"),
    [
        (RandomRecursiveMosaic(2, permutation="cyclic"), RecursiveMosaic(2, permutation="cyclic")),
        (RandomJigsaw(5, permutation="cyclic"), Jigsaw(5, permutation="cyclic")),
        (RandomCutMix(0.3, true_area=False), CutMix(0.3, true_area=False)),
        (RandomMixUp(0.3, num_classes=9), MixUp(0.3, num_classes=9)),
        (RandomSnapMix(0.3, cam=see_all), SnapMix(0.3, cam=see_all)),
    ],
)
def test_settings_are_ours(operation: Any, ours: Augmentation) -> None:
    images, labels = torch.rand(9, 1, 20, 20), torch.arange(9)
    got = call_seeded(lambda: operation(images, labels, data_keys=KEYS))
    assert same(got, call_seeded(lambda: ours(images, labels)))


@each
def test_the_same_seed_gives_the_same_pixels_on_every_device(make: Make, make_ours: Make, device: torch.device) -> None:
    images, labels = torch.rand(3, 2, 16, 16, device=device), torch.arange(3, device=device)
    want = call_seeded(lambda: make_ours()(images, labels))
    got = call_seeded(lambda: AugmentationSequential(make(), data_keys=KEYS)(images, labels))
    assert same(got, want)
    assert got[0].device == images.device


@each
def test_nothing_waits_for_the_device(make: Make, make_ours: Make) -> None:
    """Tensors on the device "meta" have no values: code that read one would fail."""
    images = torch.empty(4, 3, 16, 16, device="meta")
    masks, boxes, points = images[:, :1], torch.empty(4, 5, 4, device="meta"), torch.empty(4, 5, 2, device="meta")
    labels = torch.empty(4, dtype=torch.int64, device="meta")
    operation = make()
    *made, targets = operation(images, masks, points, labels, data_keys=["input", "mask", "keypoints", "class"])
    placed = operation(boxes, params=operation._params, data_keys=["bbox_xyxy"])
    followed = operation.transform_boxes(Boxes.from_tensor(boxes, validate_boxes=False), operation._params).data
    assert all(part.device.type == "meta" for part in [*made, placed, followed])
    assert isinstance(targets, Targets) == make_ours().mixes
    container: Any = AugmentationSequential(make(), data_keys=["input", "mask", "keypoints", "class"])
    assert container(images, masks, points, labels)[1].device.type == "meta"


@each
def test_p_is_applied_once(make: Make, make_ours: Make) -> None:
    """Count at p = 0.5: of 2000 images 1000 within five standard deviations, 112; p squared would be 500."""
    images, labels = torch.rand(2000, 1, 16, 16), torch.arange(2000)
    for operation in (make(p=0.5), AugmentationSequential(make(p=0.5), data_keys=KEYS)):
        made, _ = operation(images, labels, data_keys=KEYS)
        touched = int((made != images).flatten(1).any(1).sum())
        if make_ours().mixes:
            assert 700 < touched < 1112  # boxes may be empty
        else:
            assert abs(touched - 1000) < 112


@each_alone
def test_p_of_0_and_1(make: Make) -> None:
    images, labels = number_pixels((6, 1, 32, 32)), torch.arange(6)
    for p in (0, 1):
        operation = make(p=p)
        made, _ = operation(images, labels, data_keys=KEYS)
        changed = (made != images).flatten(1).any(1)
        assert torch.equal(operation._params["batch_prob"] > 0, changed | (operation._params["overlay"] == 0) & bool(p))
        assert changed.any() == bool(p)
    operation.p = 0  # Kornia's attribute counts, as in its own
    assert same(operation(images, labels, data_keys=KEYS)[0], images)


@each
def test_same_on_batch_draws_once(make: Make, make_ours: Make) -> None:
    images, labels = torch.rand(6, 1, 32, 32), torch.arange(6)
    want = call_seeded(lambda: make_ours(per="batch")(images, labels)[0])
    operation = make(same_on_batch=True)
    assert same(call_seeded(lambda: operation(images, labels, data_keys=KEYS)[0]), want)
    for name in ("tiles", "from_box", "to_box", "opacity"):
        assert (operation._params[name] == operation._params[name][:1]).all()
    container: Any = AugmentationSequential(make(), data_keys=KEYS, same_on_batch=True)
    assert same(call_seeded(lambda: container(images, labels)[0]), want)


@each_alone
def test_keepdim_and_single_images(make: Make) -> None:
    image, label = torch.rand(3, 16, 16), torch.tensor([4])
    assert make()(image, label, data_keys=KEYS)[0].shape == (1, 3, 16, 16)
    assert make(keepdim=True)(image, label, data_keys=KEYS)[0].shape == (3, 16, 16)
    assert make(keepdim=True)(image[0], label, data_keys=KEYS)[0].shape == (16, 16)
    assert AugmentationSequential(make(), data_keys=KEYS, keepdim=True)(image, label)[0].shape == (3, 16, 16)


@pytest.mark.parametrize("batch", [0, 1, 3])
@each_alone
def test_small_batches(make: Make, batch: int) -> None:
    images, labels = torch.rand(batch, 3, 16, 16), torch.arange(batch)
    made, targets = AugmentationSequential(make(), data_keys=KEYS)(images, labels)
    assert made.shape == images.shape
    assert len(targets[0] if isinstance(targets, Targets) else targets) == batch


@each_alone
def test_inputs_are_not_changed(make: Make) -> None:
    given = torch.rand(4, 3, 16, 16), torch.rand(4, 1, 16, 16), torch.rand(4, 2, 2), torch.arange(4)
    before = copy.deepcopy(given)
    for part in make()(*given, data_keys=["input", "mask", "keypoints", "class"])[:3]:
        part.fill_(7)
    assert same(given, before)


@each_alone
def test_gradients_flow(make: Make) -> None:
    images = torch.rand(4, 3, 16, 16, requires_grad=True)
    made = AugmentationSequential(make(), K.Normalize(0.5, 0.5), data_keys=KEYS)(images, torch.arange(4))[0]
    [gradient] = torch.autograd.grad(made.sum(), images)
    assert gradient.sum() == pytest.approx(2 * images.numel(), rel=0.5)


@each
def test_replay(make: Make, make_ours: Make) -> None:
    operation = make(num_classes=9) if make_ours().mixes else make()
    keys = ["input", "mask", "class"]
    container: Any = AugmentationSequential(
        K.RandomHorizontalFlip(), operation, K.RandomGaussianNoise(std=0.1, p=1), data_keys=keys
    )
    given = torch.rand(5, 3, 24, 24), torch.randint(0, 9, (5, 1, 24, 24)), torch.randint(0, 9, (5,))
    want, params = container(*given), container._params
    assert not same(container(*given)[1], want[1])  # draws anew
    assert same(container(*given, params=params), want)
    assert same(container(*given, params=pickle.loads(pickle.dumps(params))), want)
    others = torch.rand(5, 3, 24, 24), *given[1:]
    if not isinstance(operation, RandomSnapMix):  # whose labels depend on the images
        assert same(container(*others, params=params)[1:], want[1:])
    alone = operation(*others, params=params[1].data, data_keys=keys)
    assert same(alone, operation(*others, params=operation._params, data_keys=keys))
    assert same(apply(others[0], operation.last_plan), alone[0])
    without_images = K.AugmentationSequential(operation, data_keys=["input"])
    assert same(
        without_images(given[1], params=[params[1]._replace(name=f"{operation.name}_0")], data_keys=["mask"]), alone[1]
    )


@each
def test_serialisation(make: Make, make_ours: Make) -> None:
    images, labels, keys = torch.rand(4, 3, 16, 16), torch.arange(4), ["input", "mask", "class"]
    container: Any = AugmentationSequential(make(), K.ColorJiggle(0.1, 0.1, 0.1, 0.1), data_keys=keys)

    def call(whole: Any, **options: Any) -> Any:
        return whole(images, images[:, :1], labels, data_keys=keys, **options)

    for whole in (make(p=0.9), container):
        want = call_seeded(lambda whole=whole: call(whole))  # type: ignore[misc]
        for twin in (copy.deepcopy(whole), pickle.loads(pickle.dumps(whole))):
            assert repr(twin) == repr(whole)
            twin.load_state_dict(whole.state_dict())
            assert same(call_seeded(lambda twin=twin: call(twin)), want)  # type: ignore[misc]
            assert same(call(twin, params=whole._params), want)
    assert make(p=0.9).state_dict() == {}
    assert "p=0.9" in repr(make(p=0.9))
    setting = make_ours().settings[0]
    assert f"{setting}={getattr(make_ours(), setting)}" in repr(make())


@each
def test_kornias_operations_before_and_after(make: Make, make_ours: Make) -> None:
    """A flip that is certain draws nothing, so that ours draws as it does alone."""
    images, labels = torch.rand(4, 3, 20, 20), torch.arange(4)
    masks = torch.randint(0, 2**20, (4, 20, 20))
    flip, normalise = K.RandomHorizontalFlip(p=1.0), K.Normalize(torch.tensor([0.4]), torch.tensor([0.2]))
    container: Any = AugmentationSequential(flip, make(), normalise, data_keys=["input", "mask", "class"])
    got, moved, targets = call_seeded(lambda: container(images, masks, labels))
    ours = make_ours()
    want, wanted_targets = call_seeded(lambda: ours(images.flip(-1), labels))
    assert same(got, normalise(want))
    assert same(targets, wanted_targets)
    assert same(moved, apply_masks(masks.flip(-1), ours.last_plan)[:, None])
    assert same(container.transform_matrix, flip.transform_matrix)  # ours has no matrix


@each
def test_inverse_leaves_ours_and_the_plan_takes_tiles_back(make: Make, make_ours: Make) -> None:
    images, labels = torch.rand(4, 3, 16, 16), torch.arange(4)
    container: Any = AugmentationSequential(make(), K.RandomVerticalFlip(p=1.0), data_keys=KEYS)
    made = container.inverse(*container(images, labels))[0]
    assert same(made, apply(images, container[0].last_plan))
    if not make_ours().mixes:
        assert same(apply(made, container[0].last_plan.invert()), images)


@pytest.mark.parametrize("data_format", ["BTCHW", "BCTHW"])
@each
def test_a_clip_has_one_plan(make: Make, make_ours: Make, data_format: str) -> None:
    clips, labels = torch.rand(3, 4, 2, 16, 16), torch.arange(3)
    want, targets = call_seeded(lambda: make_ours()(clips, labels))
    video = K.VideoSequential(make(data_keys=["input"]), data_format=data_format)
    swap = (1, 2) if data_format == "BCTHW" else (1, 1)
    assert same(call_seeded(lambda: video(clips.transpose(*swap))).transpose(*swap), want)
    assert same(video(clips.transpose(*swap), params=video._params).transpose(*swap), want)
    container: Any = AugmentationSequential(video, data_keys=["input", "mask", "class"])
    masks = number_pixels((3, 4, 1, 16, 16)).transpose(*swap)
    got, moved, labelled = call_seeded(lambda: container(clips.transpose(*swap), masks, labels))
    assert same(got.transpose(*swap), want)
    assert same(labelled, targets)
    ours = make_ours()
    call_seeded(lambda: ours(clips, labels))
    assert same(moved, apply_masks(masks.transpose(*swap), ours.last_plan).transpose(*swap))


def test_frames_drawn_one_by_one() -> None:
    clips = torch.rand(2, 6, 1, 16, 16)
    video = K.VideoSequential(RandomRecursiveMosaic(3), same_on_frame=False)
    assert same(
        call_seeded(lambda: video(clips)), call_seeded(lambda: RecursiveMosaic(3)(clips.flatten(0, 1))).view_as(clips)
    )
    shared = K.VideoSequential(RandomRecursiveMosaic(3, same_on_batch=True))
    assert same(call_seeded(lambda: shared(clips)), call_seeded(lambda: RecursiveMosaic(3, per="batch")(clips)))


def test_without_kornia_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("kornia", "kornia.augmentation"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "mosaicaug.kornia.operation")
    monkeypatch.delitem(sys.modules, "mosaicaug.kornia")
    with pytest.raises(ImportError, match=r"mosaicaug\.kornia: needs Kornia.*pip install 'mosaicaug\[kornia\]'"):
        importlib.import_module("mosaicaug.kornia")


@pytest.mark.parametrize(
    ("operation", "ours"),
    [
        (RandomRecursiveMosaic, RecursiveMosaic),
        (RandomJigsaw, Jigsaw),
        (RandomCutMix, CutMix),
        (RandomMixUp, MixUp),
        (RandomSnapMix, SnapMix),
    ],
)
def test_defaults_and_classes_are_ours(operation: Any, ours: Any) -> None:
    assert repr(operation().augmentation) == repr(ours())
    if ours().mixes:
        assert operation(num_classes=7).augmentation.num_classes == 7
