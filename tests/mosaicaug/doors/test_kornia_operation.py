"""Labels, masks, boxes and keypoints through Kornia's containers, and messages that say what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from mosaicaug import CutMix, Jigsaw, RecursiveMosaic, SnapMix, Targets, apply, apply_masks
from tests.helpers.oracle import number_pixels, seeded

pytest.importorskip("kornia")
import kornia.augmentation as K
from kornia.augmentation.container.params import ParamItem
from kornia.constants import DataKey
from kornia.geometry.boxes import Boxes

from mosaicaug.kornia import (
    AugmentationSequential,
    RandomCutMix,
    RandomJigsaw,
    RandomMixUp,
    RandomRecursiveMosaic,
    RandomSnapMix,
)
from tests.helpers.kornia_calls import KEYS, Make, call_seeded, same, see_all, show_classes


def make_chain(**options: Any) -> list[Any]:
    return [
        K.RandomHorizontalFlip(),
        RandomRecursiveMosaic(2),
        RandomCutMix(num_classes=5, **options),
        K.RandomVerticalFlip(),
        RandomMixUp(num_classes=5, **options),
        RandomJigsaw(3),
    ]


@pytest.mark.parametrize("nested", ["flat", "ImageSequential", "AugmentationSequential", "random order"])
def test_two_mixing_operations_give_the_labels_of_their_pixels(nested: str) -> None:
    """Each class fills its plane. Two blends and a mean in float32 may lose 2**-18."""
    labels, chain = torch.randint(0, 5, (8,)), make_chain()
    images = show_classes(labels, 5, (12, 24))
    containers: dict[str, Callable[[], AugmentationSequential]] = {
        "flat": lambda: AugmentationSequential(*chain, data_keys=KEYS),
        "ImageSequential": lambda: AugmentationSequential(
            K.ImageSequential(*chain[:3]), K.ImageSequential(K.ImageSequential(*chain[3:])), data_keys=KEYS
        ),
        "AugmentationSequential": lambda: AugmentationSequential(
            K.AugmentationSequential(*chain[:3]), AugmentationSequential(*chain[3:]), data_keys=KEYS
        ),
        "random order": lambda: AugmentationSequential(*chain, data_keys=KEYS, random_apply=6),
    }
    container: Any = containers[nested]()
    for _ in range(3):
        made, soft = container(images, labels)
        assert soft.shape == (8, 5)
        assert (made.mean((2, 3)) - soft).abs().max() < 2**-18
        assert ((soft > 0).sum(1) > 2).any()
        assert same(container(images, labels, params=container._params)[1], soft)


def test_labels_by_name_several_of_them_and_soft_ones() -> None:
    labels = torch.randint(0, 5, (2, 8))
    soft = torch.nn.functional.one_hot(labels[1], 5).float()
    images = show_classes(labels[0], 5, (8, 8))
    container: Any = AugmentationSequential(*make_chain(), data_keys=None)
    made = container({"class_soft": soft, "label": labels[0], "image": images, "other": labels})
    assert (made["image"].mean((2, 3)) - made["label"]).abs().max() < 2**-18
    assert same(made["other"], labels)
    again = container({"label": labels[1], "image": images}, params=container._params)
    assert same(again["label"], made["class_soft"])


def test_video_labels_through_two_mixing_operations() -> None:
    labels = torch.randint(0, 5, (4,))
    clips = show_classes(labels, 5, (12, 12))[:, None].repeat(1, 3, 1, 1, 1)
    container: Any = AugmentationSequential(K.VideoSequential(*make_chain()), data_keys=KEYS)
    made, soft = container(clips, labels)
    assert (made.mean((1, 3, 4)) - soft).abs().max() < 2**-18
    assert (made.mean((3, 4)) - soft[:, None]).abs().max() < 2**-18  # every frame has it


@pytest.mark.parametrize("container", [K.ImageSequential, K.AugmentationSequential])
def test_labels_after_kornias_own_containers(container: Make) -> None:
    labels = torch.randint(0, 5, (8,))
    operations = make_chain(data_keys=["input", "mask"])
    made = container(*operations)(show_classes(labels, 5, (12, 24)))
    soft = labels
    for operation in (operations[2], operations[4]):
        soft = operation.transform_classes(soft, operation._params)
    assert (made.mean((2, 3)) - soft).abs().max() < 2**-18


def test_labels_after_kornias_own_video_container() -> None:
    labels, operation = torch.randint(0, 5, (4,)), RandomCutMix(num_classes=5, data_keys=["input"])
    clips = show_classes(labels, 5, (12, 12))[:, None].repeat(1, 3, 1, 1, 1)
    made = K.VideoSequential(operation)(clips)
    soft = operation.transform_classes(labels, operation._params)
    assert (made.mean((1, 3, 4)) - soft).abs().max() < 2**-18


def test_labels_of_any_kind_pass_what_only_moves_tiles() -> None:
    names = ["cat", "dog"]
    assert RandomJigsaw()(torch.rand(2, 3, 16, 16), names, data_keys=KEYS)[1] is names
    images, labels = torch.rand(4, 3, 16, 16), torch.arange(4)
    container: Any = AugmentationSequential(RandomCutMix(), RandomJigsaw(), K.RandomHorizontalFlip(), data_keys=KEYS)
    targets = call_seeded(lambda: container(images, labels)[1])
    assert isinstance(targets, Targets)
    assert same(targets, call_seeded(lambda: CutMix()(images, labels)[1]))


def test_snapmix_sees_the_images_that_it_mixes() -> None:
    seen: list[Tensor] = []

    def see(images: Tensor, labels: Tensor) -> Tensor:
        seen.append(images)
        return see_all(images, labels)

    images, labels = torch.rand(4, 3, 16, 16), torch.arange(4)
    snapmix: Any = RandomSnapMix(cam=see)
    container: Any = AugmentationSequential(K.ImageSequential(K.RandomHorizontalFlip(p=1.0), snapmix), data_keys=KEYS)
    got, targets = call_seeded(lambda: container(images, labels))
    assert same(seen[0], images.flip(-1))
    maps = torch.rand(4, 3, 3)
    want = call_seeded(lambda: SnapMix()(images, labels, maps=maps))
    assert same(call_seeded(lambda: RandomSnapMix()(images, labels, maps=maps)), want)
    assert same(got, apply(images.flip(-1), snapmix.last_plan))
    assert same(targets, SnapMix().targets(snapmix.last_plan, labels, maps=see_all(seen[0], labels)))


@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32])
@pytest.mark.parametrize(
    "make", [lambda **kw: RandomJigsaw(3, **kw), lambda **kw: RandomCutMix(data_keys=["input"], **kw)]
)
def test_masks_show_what_their_images_show(make: Make, dtype: torch.dtype, keepdim: bool) -> None:
    """A mask that is its image stays its image."""
    images = torch.randint(0, 2 if dtype == torch.bool else 250, (5, 2, 20, 22)).float()
    one, several = images[:, 0].to(dtype), images.to(dtype)
    operation = make(keepdim=keepdim)
    for kind in (K.AugmentationSequential, AugmentationSequential):
        container = kind(operation, data_keys=["input", "mask", "mask"])
        made, first, second = container(images, one, several)
        assert same(first, (made[:, 0] if keepdim else made[:, :1]).to(dtype))
        assert same(second, made.to(dtype))


def test_masks_of_single_images_and_lists() -> None:
    images, masks = torch.rand(3, 3, 12, 12), torch.randint(0, 9, (3, 12, 12))
    container: Any = K.AugmentationSequential(RandomJigsaw(3), data_keys=["input", "mask"])
    whole = container(images, masks)[1]
    listed = container(images, list(masks), params=container._params)[1]
    assert same(torch.cat(listed), whole)
    single = call_seeded(lambda: container(images[0], masks[0])[1])
    assert same(single, call_seeded(lambda: container(images[:1], masks[:1])[1]))


def test_masks_next_to_uint8_images() -> None:
    images, masks = number_pixels((4, 3, 16, 16), torch.uint8), torch.randint(0, 2**20, (4, 16, 16))
    container: Any = K.AugmentationSequential(RandomJigsaw(), data_keys=["input", "mask"])
    made, moved = call_seeded(lambda: container(images, masks))
    assert made.dtype == torch.uint8
    ours: Any = Jigsaw()
    call_seeded(lambda: ours(images))
    assert same(moved[:, 0], apply_masks(masks, ours.last_plan))


BOXES = torch.tensor([[[0.0, 0.0, 7.0, 5.0], [9.0, 1.0, 15.0, 7.0], [3.0, 8.0, 6.0, 15.0]]])  # each in one quadrant


def paint(boxes: Any) -> Tensor:
    """Images of 16 px, one plane for each box of xyxy with last pixels."""
    y, x = torch.arange(16)[:, None], torch.arange(16)
    x0, y0, x1, y1 = boxes[..., None, None].unbind(2)
    shown: Tensor = (x >= x0) & (x <= x1) & (y >= y0) & (y <= y1) & (x1 > x0)
    return shown.float()


@pytest.mark.parametrize("key", ["bbox", "bbox_xyxy", "bbox_xywh"])
def test_boxes_lie_on_their_pixels(key: str) -> None:
    given, images = BOXES.repeat(6, 1, 1), paint(BOXES).repeat(6, 1, 1, 1)
    modes = {"bbox": "vertices_plus", "bbox_xyxy": "xyxy_plus", "bbox_xywh": "xywh"}
    values: Any = Boxes.from_tensor(given, mode="xyxy_plus").to_tensor(modes[key])
    container: Any = K.AugmentationSequential(
        K.RandomHorizontalFlip(), RandomRecursiveMosaic(1), K.RandomVerticalFlip(), data_keys=["input", key]
    )
    made, boxes = container(images, values)
    assert boxes.shape == values.shape
    assert same(paint(Boxes.from_tensor(boxes, mode=modes[key]).to_tensor("xyxy_plus")), made)
    assert container[1].last_boxes.source.tolist() == torch.arange(18).view(6, 3).tolist()
    as_boxes = container(images, Boxes.from_tensor(given, mode="xyxy_plus"), params=container._params)[1]
    assert same(as_boxes.to_tensor(modes[key]), boxes)


def test_boxes_of_mixed_images_lie_on_their_pixels() -> None:
    """Own boxes, then the partner's, each round what shows of it; what is hidden is 0, and still so after a flip."""
    planes = torch.eye(6).repeat_interleave(3, 1).view(6, 18, 1, 1)  # image i has box 0 in plane 3 * i, ...
    images, keys = planes * paint(BOXES).repeat(1, 6, 1, 1), ["input", "bbox_xyxy"]
    mix: Any = RandomCutMix(0.5, data_keys=keys)
    container: Any = K.AugmentationSequential(mix, K.RandomHorizontalFlip(p=1.0), data_keys=keys)
    made, boxes = container(images, BOXES.repeat(6, 1, 1))
    assert boxes.shape == (6, 6, 4)
    shown = 0
    for image, (row, sources) in enumerate(zip(boxes, mix.last_boxes.source, strict=True)):
        for place, (box, source) in enumerate(zip(row, sources.tolist(), strict=True)):
            if source < 0:
                assert not box.any()
            elif mix.last_plan.overlay[image] != image:
                y, x = made[image, source].nonzero().unbind(1)
                assert box.tolist() == [x.min(), y.min(), x.max(), y.max()]
                assert source % 3 == place % 3
                shown += 1
    assert 10 < shown < 30


def test_boxes_through_two_mixing_operations() -> None:
    operations: Any = [RandomCutMix(data_keys=["input"]), K.RandomHorizontalFlip(), RandomCutMix(data_keys=["input"])]
    container: Any = K.AugmentationSequential(*operations, data_keys=["input", "bbox_xyxy"])
    boxes = container(torch.rand(6, 1, 16, 16), BOXES.repeat(6, 1, 1))[1]
    assert boxes.shape == (6, 12, 4)
    names = operations[0].last_boxes.take(torch.arange(18).view(6, 3))
    names = operations[2].last_boxes.take(names)
    assert ((names < 0) == (boxes == 0).all(-1)).all()  # what the first one hid, the second one does not find
    extent, whole = boxes[..., 2:] - boxes[..., :2], (BOXES[0, :, 2:] - BOXES[0, :, :2])[names % 3]
    assert (extent <= whole)[names >= 0].all()
    assert (extent == whole).all(-1)[names >= 0].any()


def test_boxes_beyond_the_edge_after_a_crop_are_cut_off_and_lists_are_padded() -> None:
    images = torch.rand(1, 1, 16, 16)
    container: Any = K.AugmentationSequential(K.CenterCrop((8, 12)), RandomJigsaw(1), data_keys=["input", "bbox_xyxy"])
    boxes = torch.tensor([[1.0, 6.0, 15.0, 15.0], [0.0, 0.0, 3.0, 3.0]])
    assert container(images, boxes[None])[1].tolist() == [[[0, 2, 11, 7], [0, 0, 0, 0]]]
    lists = K.AugmentationSequential(RandomJigsaw(1), data_keys=["input", "bbox_xyxy"])
    made = lists(images.repeat(2, 1, 1, 1), [boxes, boxes[:1]])[1]
    assert made.tolist() == [boxes.tolist(), [boxes[0].tolist(), [0, 0, 0, 0]]]


def test_boxes_of_an_operation_by_itself_are_edges() -> None:
    images, boxes = torch.rand(3, 1, 16, 16), torch.tensor([[[0.0, 0.0, 16.0, 16.0], [0.0, 0.0, 8.0, 4.0]]] * 3)
    made = RandomMixUp()(images, boxes, torch.arange(3), data_keys=["input", "bbox_xyxy", "class"])[1]
    assert same(made, boxes.repeat(1, 2, 1))


def test_keypoints_lie_on_their_pixels() -> None:
    """The value of the pixel under each keypoint stays; NaN for the hidden ones, and a second mixing leaves them so."""
    images = number_pixels((6, 1, 16, 18))
    points = torch.stack([torch.randint(0, 18, (6, 10)), torch.randint(0, 16, (6, 10))], 2).float()
    keys = ["input", "keypoints"]
    operations: Any = (
        K.RandomHorizontalFlip(),
        RandomRecursiveMosaic(2),
        RandomCutMix(data_keys=keys),
        K.RandomVerticalFlip(),
        RandomCutMix(data_keys=keys),
    )
    made, moved = K.AugmentationSequential(*operations, data_keys=keys)(images, points)
    assert moved.shape == (6, 40, 2)
    values = images[torch.arange(6)[:, None], 0, points[..., 1].long(), points[..., 0].long()]
    for operation in (operations[1], operations[2], operations[4]):
        values = operation.last_keypoints.take(values)
    there = ~moved.isnan().any(-1)
    assert ((values >= 0) == there).all()
    assert 30 < there.sum() < 120
    x, y = moved.nan_to_num(0).long().unbind(-1)
    assert same(made[torch.arange(6)[:, None], 0, y, x][there], values[there])


def test_video_boxes_and_keypoints() -> None:
    clips, boxes = paint(BOXES).repeat(2, 1, 1, 1)[:, None].repeat(1, 3, 1, 1, 1), BOXES.repeat(2, 1, 1)
    vertices = Boxes.from_tensor(boxes, mode="xyxy_plus").data[:, None].repeat(1, 3, 1, 1, 1)
    container: Any = K.AugmentationSequential(
        K.VideoSequential(RandomRecursiveMosaic(1)), data_keys=["input", "bbox", "keypoints"]
    )
    made, moved, points = container(clips, vertices, vertices[:, :, :, 0])
    for frame in range(3):
        assert same(paint(Boxes(moved[:, frame]).to_tensor("xyxy_plus")), made[:, frame])
    assert same(points, moved[:, :, :, 0])


IMAGES, LABELS = torch.zeros(4, 3, 16, 16), torch.arange(4)


LOST = r"RandomCutMix: mixing images mixes labels too, got only \['image'\]; pass them as 'class', in containers to"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: RandomCutMix()(IMAGES), LOST),
        (lambda: K.ImageSequential(RandomCutMix())(IMAGES), LOST),
        (lambda: K.AugmentationSequential(RandomCutMix(), data_keys=KEYS)(IMAGES, LABELS), LOST),
        (lambda: AugmentationSequential(RandomCutMix())(IMAGES), LOST),
        (
            lambda: K.AugmentationSequential(AugmentationSequential(RandomCutMix()), data_keys=KEYS)(IMAGES, LABELS),
            LOST,
        ),
        (
            lambda: AugmentationSequential(RandomCutMix(), RandomMixUp(num_classes=4), data_keys=KEYS)(IMAGES, LABELS),
            r"RandomMixUp: labels must be integer \[B\] or soft \[B, K\], got Targets; .* num_classes= to both",
        ),
        (lambda: RandomCutMix()(IMAGES, [0, 1, 2]), "RandomCutMix: 4 images need 4 labels, got 3"),
        (lambda: RandomCutMix()(IMAGES, LABELS[:3]), "RandomCutMix: 4 images need 4 labels, got 3"),
        (lambda: RandomCutMix(num_classes=3)(IMAGES, LABELS), r"RandomCutMix: num_classes=3 needs labels in 0..2"),
        (lambda: AugmentationSequential(RandomSnapMix(), data_keys=KEYS)(IMAGES, LABELS), "SnapMix: needs class act"),
        (lambda: RandomJigsaw()(IMAGES, LABELS), r"RandomJigsaw: data_keys name \['image'\], got 2 inputs; pass data"),
        (lambda: RandomJigsaw()(LABELS, data_keys=["class"]), r"RandomJigsaw: draws for images, got only \['label'\]"),
        (lambda: RandomJigsaw(data_keys=["input", "depth"]), "'depth' is not a valid DataKey"),
        (lambda: RandomJigsaw()(IMAGES.int()), "RandomJigsaw: images must be one of uint8, .* got torch.int32"),
        (lambda: RandomJigsaw()(IMAGES[..., :3]), r"Jigsaw\(.*\): needs images of at least 4x4 px, got 16x3"),
        (lambda: RandomJigsaw(p=1.5), "RandomJigsaw: p must lie in 0..1, got 1.5"),
        (lambda: RandomJigsaw(0), "Jigsaw: n must be at least 1, got 0"),
        (
            lambda: RandomJigsaw()(IMAGES, IMAGES[..., :8], data_keys=["input", "mask"]),
            r"RandomJigsaw: the draw is for 4 of 16x16 px, got \[4, 3, 16, 8\]; .* masks as large as their images",
        ),
        (
            lambda: RandomJigsaw()(IMAGES, BOXES.repeat(4, 1, 1) + 4, data_keys=["input", "bbox_xyxy"]),
            r"apply_boxes: boxes must be .* inside 16x16 px .* clip them first",
        ),
        (
            lambda: RandomJigsaw()(IMAGES, params=RandomJigsaw().forward_parameters((3, 3, 16, 16))),
            r"RandomJigsaw: the draw is for 3 of 16x16 px, got \[4, 3, 16, 16\]; params= are for images of one shape",
        ),
        (lambda: RandomJigsaw()(IMAGES, params={}), r"RandomJigsaw: params lack \['forward_input_shape', .*'to_box'\]"),
        (
            lambda: K.AugmentationSequential(RandomMixUp(data_keys=["input"]), data_keys=["input", "mask"])(
                IMAGES, list(IMAGES)
            ),
            "RandomMixUp: partners are out of reach; pass masks as one tensor",
        ),
        (
            lambda: K.VideoSequential(RandomMixUp(data_keys=["input"], same_on_batch=True))(IMAGES[:, None]),
            "RandomMixUp: partners are out of reach; .* same_on_batch=False in VideoSequential",
        ),
        (
            lambda: AugmentationSequential(K.VideoSequential(RandomMixUp(), same_on_frame=False), data_keys=KEYS)(
                IMAGES[:, None].repeat(1, 2, 1, 1, 1), LABELS
            ),
            "RandomMixUp: 8 images need 8 labels, got 4",
        ),
        (
            lambda: AugmentationSequential(RandomMixUp(), data_keys=KEYS)(
                LABELS,
                params=[ParamItem("RandomMixUp_0", RandomMixUp().forward_parameters((4, 3, 16, 16)))],
                data_keys=["class"],
            ),
            "RandomMixUp: labels are mixed with their images, got none; pass 'input' too",
        ),
    ],
)
def test_messages(call: Callable[[], Any], message: str) -> None:
    torch.manual_seed(1)
    with pytest.raises(ValueError, match=message):
        call()


def test_a_generator_governs_and_unknown_arguments_are_refused() -> None:
    images, labels = torch.rand(4, 3, 16, 16), torch.arange(4)
    for operation, aug in ((RandomRecursiveMosaic(2), RecursiveMosaic(2)), (RandomCutMix(), CutMix())):
        want = aug(images, labels, generator=seeded(3))
        assert same(operation(images, labels, data_keys=KEYS, generator=seeded(3)), want)
        with pytest.raises(TypeError, match=rf"^{operation.name}: got unknown arguments \['mapz'\]$"):
            operation(images, labels, data_keys=KEYS, mapz=3)
        with pytest.raises(TypeError, match=r"generator must be a torch\.Generator, got int"):
            operation(images, labels, data_keys=KEYS, generator=3)


def test_eval_leaves_images_and_labels_alone() -> None:
    images, labels = torch.rand(4, 3, 16, 16), torch.arange(4)
    container: Any = AugmentationSequential(RandomJigsaw(), RandomSnapMix(num_classes=4), data_keys=KEYS)
    made, soft = container.eval()(images, labels)
    assert torch.equal(made, images)
    assert torch.equal(soft, torch.eye(4))
    assert torch.equal(RandomCutMix().eval()(images), images)


def test_settings_that_change_are_followed_and_shown() -> None:
    operation: Any = RandomRecursiveMosaic(3)
    operation.augmentation.r, operation.p = 1, 0.0
    assert "r=1" in repr(operation)
    assert operation.forward_parameters((4, 3, 16, 16))["tiles"].shape == (4, 4)
    images = torch.rand(4, 3, 16, 16)
    assert torch.equal(operation(images), images)


def test_labels_may_be_lists() -> None:
    images = torch.rand(4, 3, 16, 16)
    want = call_seeded(lambda: RandomCutMix()(images, torch.arange(4)))
    assert same(call_seeded(lambda: RandomCutMix()(images, [0, 1, 2, 3])), want)


def test_maps_of_a_container_reach_the_labels_that_travel_along() -> None:
    images, labels, maps = torch.rand(6, 1, 16, 16), torch.arange(6), torch.rand(6, 4, 4)
    container = AugmentationSequential(
        RandomSnapMix(), data_keys=KEYS, extra_args={DataKey.INPUT: {"maps": maps}, DataKey.CLASS: {}}
    )
    got = call_seeded(lambda: container(images, labels))
    assert same(got, call_seeded(lambda: SnapMix()(images, labels, maps=maps)))


def test_labels_of_snapmix_need_maps_whatever_was_drawn() -> None:
    images, labels, maps = torch.rand(4, 1, 16, 16), torch.arange(4), torch.rand(4, 4, 4)
    operation = RandomSnapMix(p=0.0)
    with pytest.raises(ValueError, match="SnapMix: needs class activation maps"):
        operation(images, labels, data_keys=KEYS)
    operation = RandomSnapMix()
    _, targets = operation(images, labels, data_keys=KEYS, maps=maps)
    _, again = operation.eval()(images, labels, data_keys=KEYS, maps=maps, params=operation._params)
    assert same(again, targets)
