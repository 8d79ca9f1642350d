"""Our augmentations as torchvision v2 transforms: structure, types and labels as v2 has them, pixels as ours."""

from __future__ import annotations

import copy
import importlib
import pickle
import sys
from collections.abc import Callable
from typing import Any

import PIL.Image
import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.data import default_collate
from torchvision import tv_tensors
from torchvision.transforms import v2

from mosaicaug import Augmentation, Compose, CutMix, Jigsaw, MixUp, OneOf, RecursiveMosaic, SnapMix, apply_masks
from mosaicaug.torchvision import V2Transform
from tests.helpers.oracle import number_pixels

HEIGHT, WIDTH = 24, 32


def see_all(images: Tensor, _: Tensor) -> Tensor:
    """Maps for SnapMix, at module level so that it can be pickled."""
    return images.float().mean(1)


AUGMENTATIONS: dict[str, Callable[[], Augmentation]] = {
    "RecursiveMosaic": lambda: RecursiveMosaic(2, p=0.7),
    "Jigsaw": lambda: Jigsaw(3),
    "CutMix": CutMix,
    "MixUp": lambda: MixUp(num_classes=8),
    "SnapMix": lambda: SnapMix(cam=see_all),
    "Compose": lambda: Compose([RecursiveMosaic(1), CutMix()]),
    "OneOf": lambda: OneOf([Jigsaw(2), CutMix(), MixUp()]),
}
all_augs = pytest.mark.parametrize("make", AUGMENTATIONS.values(), ids=AUGMENTATIONS.keys())


def plain(value: Tensor) -> Tensor:
    return value.as_subclass(Tensor)


def make_boxes(values: Any, kind: str = "XYXY", **options: Any) -> Any:
    """Boxes ``[N, 4]`` or ``[B, N, 4]``; those of a batch come from stacking, as in a collate_fn."""
    values = torch.as_tensor(values)
    if values.ndim == 2:
        return tv_tensors.BoundingBoxes(values, format=kind, canvas_size=(HEIGHT, WIDTH), **options)
    with tv_tensors.set_return_type("TVTensor"):
        return torch.stack([make_boxes(one, kind, **options) for one in values])


def make_keypoints(values: Any) -> Any:
    return tv_tensors.KeyPoints(torch.as_tensor(values), canvas_size=(HEIGHT, WIDTH))


def make_sample(batch: tuple[int, ...] = ()) -> dict[str, Any]:
    """Pixels that carry their address, the mask that says the same, and boxes of one pixel and keypoints on them."""
    image = number_pixels((*batch, 1, HEIGHT, WIDTH))
    x, y = torch.randint(WIDTH, (*batch, 9)), torch.randint(HEIGHT, (*batch, 9))
    values = plain(image).flatten(-3).gather(-1, y * WIDTH + x)
    return {
        "image": tv_tensors.Image(image),
        "mask": tv_tensors.Mask(image.long()),
        "boxes": make_boxes(torch.stack([x, y, x + 1, y + 1], -1).float()),
        "keypoints": make_keypoints(torch.stack([x, y], -1).float()),
        "labels": values.long(),
    }


def read_pixels(image: Tensor, points: Tensor) -> Tensor:
    x, y = points.long().unbind(-1)
    return plain(image).flatten(-3).gather(-1, y * WIDTH + x)


@all_augs
def test_pixels_and_targets_are_those_of_the_augmentation(make: Callable[[], Augmentation]) -> None:
    images, labels = torch.rand(8, 3, HEIGHT, WIDTH), torch.arange(8)
    torch.manual_seed(5)
    want, targets = make()(images, labels)
    state = torch.get_rng_state()
    torch.manual_seed(5)
    got, labels_out = V2Transform(make())(tv_tensors.Image(images), labels)
    assert torch.equal(torch.get_rng_state(), state)
    assert type(got) is tv_tensors.Image
    assert torch.equal(plain(got), want)
    assert type(labels_out) is type(targets)
    assert all(torch.equal(*pair) for pair in zip(tree_leaves(labels_out), tree_leaves(targets), strict=True))


def test_plain_tensors_need_no_wrapper() -> None:
    images, labels = torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8), torch.arange(6)
    flip, mosaic, mix = v2.RandomHorizontalFlip(1.0), RecursiveMosaic(2), CutMix(num_classes=6)
    torch.manual_seed(1)
    got, soft = v2.Compose([flip, mosaic, mix])(images, labels)
    torch.manual_seed(1)
    want, want_soft = mix(mosaic(flip(images)), labels)
    assert torch.equal(got, want)
    assert torch.equal(soft, want_soft)
    torch.manual_seed(1)
    one = v2.Compose([flip, mosaic])(images[0])
    torch.manual_seed(1)
    assert torch.equal(one, V2Transform(mosaic)(flip(images[0])))


@pytest.mark.parametrize("aug", [RecursiveMosaic(2), Jigsaw(5), Compose([Jigsaw(2), RecursiveMosaic(1)])])
def test_a_single_sample_moves_as_one(aug: Augmentation) -> None:
    """Every box and keypoint shows the pixel that it showed before, and the mask all of them."""
    sample = make_sample()
    got = V2Transform(aug)(sample)
    assert not torch.equal(got["image"], sample["image"])
    assert torch.equal(got["mask"], got["image"].long())
    assert torch.equal(read_pixels(got["image"], plain(got["boxes"])[:, :2]), sample["labels"])
    assert torch.equal(plain(got["boxes"])[:, 2:], plain(got["boxes"])[:, :2] + 1)
    assert torch.equal(read_pixels(got["image"], plain(got["keypoints"])), sample["labels"])
    assert got["labels"] is sample["labels"]


@pytest.mark.parametrize("aug", [CutMix(), Compose([RecursiveMosaic(2), CutMix()])])
def test_a_batch_that_is_mixed_moves_as_one(aug: Augmentation) -> None:
    """Own boxes and keypoints, then the partner's; what shows is the pixel, what is covered is empty, NaN and -1."""
    sample = make_sample((5,))
    got = V2Transform(aug)(sample)
    boxes, keypoints, labels = plain(got["boxes"]), plain(got["keypoints"]), got["labels"]
    assert boxes.shape == (5, 18, 4)
    assert torch.equal(got["mask"], got["image"].long())
    there = labels >= 0
    assert there[:, :9].any()
    assert there[:, 9:].any()
    assert not there.all()
    shown = read_pixels(got["image"], boxes[..., :2])
    assert torch.equal(shown[there], labels[there].float())
    assert not boxes[~there].any()
    assert torch.equal(torch.isnan(keypoints).all(-1), ~there)
    assert torch.equal(keypoints[there], boxes[..., :2][there])


@pytest.mark.parametrize("shape", [(HEIGHT, WIDTH), (1, HEIGHT, WIDTH), (3, HEIGHT, WIDTH)])
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64])
def test_masks_of_every_rank(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    mask, aug = torch.randint(0, 200, shape).to(dtype), RecursiveMosaic(2)
    _, got = V2Transform(aug)(tv_tensors.Image(torch.rand(3, HEIGHT, WIDTH)), tv_tensors.Mask(mask))
    assert aug.last_plan is not None
    assert type(got) is tv_tensors.Mask
    assert got.dtype == dtype
    assert torch.equal(plain(got), apply_masks(mask[None], aug.last_plan)[0])
    batch = V2Transform(aug)(torch.rand(4, 3, HEIGHT, WIDTH), tv_tensors.Mask(mask.expand(4, *shape)))[1]
    assert batch.shape == (4, *shape)


@pytest.mark.parametrize("kind", ["XYXY", "XYWH", "CXCYWH"])
def test_boxes_keep_their_format(kind: str) -> None:
    """Bit for bit where nothing moves, and the same boxes as XYXY where something does."""
    image = tv_tensors.Image(torch.rand(3, HEIGHT, WIDTH))
    corners = make_boxes([[0.1, 0.7, 9.3, 20.9], [3.3, 4.1, 31.7, 7.9], [5, 5, 5, 5]], clamping_mode=None)
    given = v2.functional.convert_bounding_box_format(corners, new_format=kind)
    still = V2Transform(Jigsaw(1))(image, given)[1]
    assert torch.equal(still[:2], given[:2])
    torch.manual_seed(3)
    want = V2Transform(Jigsaw(4))(image, corners)[1]
    torch.manual_seed(3)
    got = V2Transform(Jigsaw(4))(image, given)[1]
    assert vars(got) == vars(given)
    assert (v2.functional.convert_bounding_box_format(got, new_format="XYXY") - want).abs().max() < 1e-5


def test_integers_stay_integers() -> None:
    given = {"boxes": make_boxes([[3, 4, 9, 11]]), "points": make_keypoints([[3, 4], [-2, 5]])}
    _, got = V2Transform(Jigsaw(4))(torch.rand(3, HEIGHT, WIDTH), given)
    assert got["boxes"].dtype == got["points"].dtype == torch.int64
    assert got["points"][1].tolist() == [-1, -1]
    boxes = make_boxes(torch.tensor([[[3, 4, 29, 21]]] * 4))
    images, snapmix = torch.rand(4, 3, HEIGHT, WIDTH), V2Transform(SnapMix(), labels_getter=None)
    torch.manual_seed(6)
    rounded = snapmix(images, boxes)[1]
    torch.manual_seed(6)
    exact = snapmix(images, make_boxes(plain(boxes).double()))[1]
    assert not torch.equal(plain(exact), plain(exact).trunc())
    assert torch.equal(plain(rounded), plain(exact).round().long())


def test_what_vanished_is_sanitized_with_its_label() -> None:
    """A batch entry under CutMix, taken out, is a sample of torchvision's; so is one with an empty box."""
    sample = make_sample((4,))
    got = V2Transform(CutMix())(sample)
    for entry in range(4):
        one = {"image": got["image"][entry], "labels": got["labels"][entry]}
        boxes, points = got["boxes"][entry], got["keypoints"][entry]
        boxes = v2.SanitizeBoundingBoxes()({**one, "boxes": make_boxes(plain(boxes))})
        points = v2.SanitizeKeyPoints(labels_getter="default")({**one, "points": make_keypoints(plain(points))})
        assert boxes["labels"].tolist() == points["labels"].tolist() == [x for x in one["labels"].tolist() if x >= 0]
    pipeline = v2.Compose([V2Transform(RecursiveMosaic(1)), v2.SanitizeBoundingBoxes()])
    target = {"boxes": make_boxes([[5.0, 5, 5, 5], [1, 1, 4, 4]]), "labels": torch.tensor([3, 8])}
    assert pipeline(tv_tensors.Image(torch.rand(3, HEIGHT, WIDTH)), target)[1]["labels"].tolist() == [8]


def test_groups_of_keypoints_stay_groups() -> None:
    points = torch.rand(5, 6, 2) * 20
    image = torch.rand(3, HEIGHT, WIDTH)
    torch.manual_seed(2)
    flat = V2Transform(Jigsaw(4))(image, make_keypoints(points.flatten(0, 1)))[1]
    torch.manual_seed(2)
    groups = V2Transform(Jigsaw(4))(image, make_keypoints(points))[1]
    assert groups.shape == (5, 6, 2)
    assert torch.equal(groups.flatten(0, 1), plain(flat))
    batch = make_keypoints(points.expand(4, 5, 6, 2))
    mixed = V2Transform(CutMix(), labels_getter=None)(image.expand(4, 3, HEIGHT, WIDTH), batch)[1]
    assert mixed.shape == (4, 10, 6, 2)
    own, same = plain(mixed)[:, :5], batch
    assert torch.equal(own[~own.isnan()], same[~own.isnan()])


def test_a_clip_is_one_sample_and_clips_are_a_batch() -> None:
    frames = torch.arange(HEIGHT * WIDTH).float().view(HEIGHT, WIDTH).expand(4, 3, HEIGHT, WIDTH)
    got = V2Transform(RecursiveMosaic(2))(tv_tensors.Video(frames))
    assert type(got) is tv_tensors.Video
    assert torch.equal(got, got[:1].expand_as(got))
    assert not torch.equal(got, frames)
    clips, labels = tv_tensors.Video(frames.expand(5, -1, -1, -1, -1)), torch.arange(5)
    assert V2Transform(CutMix(num_classes=5))(clips, labels)[1].shape == (5, 5)
    aug = Jigsaw(4)
    mixed = V2Transform(aug)({"clips": clips})["clips"]
    assert len(aug.last_plan or ()) == 5
    assert not torch.equal(mixed[0], mixed[1])


def test_images_of_one_sample_share_their_plan() -> None:
    left = torch.rand(3, HEIGHT, WIDTH)
    pair = {"left": tv_tensors.Image(left), "right": tv_tensors.Image(left[:1])}
    got = V2Transform(RecursiveMosaic(2))(pair)
    assert torch.equal(got["left"][:1], plain(got["right"]))


STRUCTURES: dict[str, Any] = {
    "image and labels": lambda image, labels: (image, labels),
    "a dict": lambda image, labels: {"image": image, "labels": labels, "name": ["a"], "none": None},
    "labels first": lambda image, labels: {"some_label": torch.zeros(3), "Labels": labels, "image": image},
    "label in a name": lambda image, labels: {"image": image, "area": torch.zeros(4), "class_label_id": labels},
    "a target": lambda image, labels: [image, {"area": torch.zeros(4), "labels": labels}, 3.5],
    "nested": lambda image, labels: ({"views": [image, {"extra": torch.zeros(2)}]}, labels),
}


@pytest.mark.parametrize("kind", [tv_tensors.Image, tv_tensors.Video, Tensor])
@pytest.mark.parametrize("name", STRUCTURES)
def test_images_and_labels_are_those_that_v2_finds(name: str, kind: type[Tensor]) -> None:
    """The leaves that change are those that v2's MixUp changes; all others are the very same objects."""
    shape = (4, 2, 3, 16, 16) if kind is tv_tensors.Video else (4, 3, 16, 16)
    images, labels = torch.rand(shape).as_subclass(kind), torch.arange(4)
    given = STRUCTURES[name](images, labels)
    if name == "labels first" and kind is Tensor:
        given = dict(reversed(given.items()))  # the first plain tensor is the image
    theirs, ours = v2.MixUp(num_classes=4)(given), V2Transform(MixUp(num_classes=4))(given)
    assert type(ours) is type(theirs)
    before, after, wanted = tree_leaves(given), tree_leaves(ours), tree_leaves(theirs)
    assert [type(leaf) for leaf in after] == [type(leaf) for leaf in wanted]
    changed = [new is not old for new, old in zip(after, before, strict=True)]
    assert changed == [new is not old for new, old in zip(wanted, before, strict=True)]
    assert sum(changed) == 2


def test_a_callable_finds_labels_and_none_means_none() -> None:
    sample = {"a": torch.rand(4, 3, HEIGHT, WIDTH), "y": torch.tensor([[1.0, 0], [0, 1], [1, 0], [0, 1]])}
    got = V2Transform(CutMix(), labels_getter=lambda given: given["y"])(sample)
    assert got["y"].shape == (4, 2)
    assert not torch.equal(got["a"], sample["a"])
    image, y, mask = V2Transform(CutMix(), labels_getter=None)(sample["a"], sample["y"], tv_tensors.Mask(sample["a"]))
    assert torch.equal(plain(mask), image)
    assert y is sample["y"]


def test_input_is_not_changed() -> None:
    sample = make_sample((5,))
    before = copy.deepcopy(sample)
    for value in V2Transform(CutMix())(sample).values():
        plain(value).fill_(-7)
    assert all(torch.equal(plain(sample[key]), plain(before[key])) for key in sample)


def test_samples_are_collated_with_their_types() -> None:
    samples = [make_sample() for _ in range(3)]
    with tv_tensors.set_return_type("TVTensor"):
        batch = default_collate(samples)
    got = V2Transform(RecursiveMosaic(2))(batch)
    assert {key: type(value) for key, value in got.items()} == {key: type(value) for key, value in samples[0].items()}
    assert vars(got["boxes"]) == vars(samples[0]["boxes"])
    assert torch.equal(read_pixels(got["image"], plain(got["keypoints"])), got["labels"])


def test_it_is_a_transform_that_can_be_pickled_and_printed() -> None:
    transform = pickle.loads(pickle.dumps(V2Transform(SnapMix(cam=see_all), labels_getter=None)))
    assert isinstance(transform, v2.Transform)
    assert "SnapMix(beta=5.0" in repr(v2.Compose([transform]))
    image = tv_tensors.Image(torch.rand(4, 3, HEIGHT, WIDTH))
    assert transform(image).shape == image.shape


IMAGES = torch.zeros(4, 3, HEIGHT, WIDTH)
LABELS = torch.arange(4)
FAR = make_boxes([[0.0, 0, 40, 9]])
ROTATED = make_boxes([[9.0, 9, 4, 4, 30]], kind="CXCYWHR")
ELSEWHERE = tv_tensors.BoundingBoxes([[0, 0, 9, 9]], format="XYXY", canvas_size=(WIDTH, HEIGHT))


@pytest.mark.parametrize(
    ("aug", "getter", "inputs", "message"),
    [
        (CutMix(), "default", (IMAGES,), "CutMix mixes labels too, found none.*labels_getter"),
        (CutMix(), "default", (IMAGES, {"area": LABELS}), "found none"),
        (MixUp(), lambda given: given[1].clone(), (IMAGES, LABELS), "must be a tensor of the input, got Tensor"),
        (MixUp(), lambda _: [1, 2], (IMAGES, LABELS), "must be a tensor of the input, got list"),
        (MixUp(), "default", (IMAGES, LABELS[:3]), "MixUp: 4 images need 4 labels, got 3"),
        (CutMix(), "default", (IMAGES[0], LABELS), r"mixes images of a batch, got one of \[3, 24, 32\].*collate_fn"),
        (Jigsaw(2), "default", (IMAGES[0], tv_tensors.Mask(LABELS.expand(5, 4))), "apply_masks: .*got masks of"),
        (Jigsaw(2), "default", (IMAGES[0], FAR), "inside 32x24 px .*got .* for box 0 of image 0; clip them"),
        (Jigsaw(2), "default", (IMAGES, FAR), r"boxes must be \[4, N, 4\], got \[1, 4\]"),
        (Jigsaw(2), "default", (IMAGES[0], ROTATED), "must be XYXY, XYWH or CXCYWH, got CXCYWHR, which are rotated"),
        (Jigsaw(2), "default", (IMAGES[0], ELSEWHERE), r"canvas_size \(32, 24\), images are \(24, 32\) px"),
        (
            Jigsaw(2),
            "default",
            (tv_tensors.Image(IMAGES[0]), tv_tensors.Image(IMAGES)),
            r"batch and size must agree, got \[\[3, 24, 32\], \[4, 3, 24, 32\]\]",
        ),
    ],
)
def test_errors_say_what_to_do(aug: Augmentation, getter: Any, inputs: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        V2Transform(aug, labels_getter=getter)(*inputs)
    assert "\n" not in str(caught.value)


def test_what_is_no_image_or_no_augmentation() -> None:
    for wrong, message in (
        ((PIL.Image.new("RGB", (8, 8)), 3), r"got a PIL image; put v2\.ToImage\(\) before"),
        ((3, "name"), r"found no image among \['int', 'str'\]"),
    ):
        with pytest.raises(TypeError, match=message):
            V2Transform(Jigsaw(2))(*wrong)
    with pytest.raises(TypeError, match="needs an augmentation of mosaicaug, got RandomHorizontalFlip"):
        V2Transform(v2.RandomHorizontalFlip())
    with pytest.raises(ValueError, match="labels_getter must be 'default', a callable or None, got 'labels'"):
        V2Transform(CutMix(), labels_getter="labels")  # type: ignore[arg-type]


def test_without_torchvision_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.delitem(sys.modules, "mosaicaug.torchvision")
    with pytest.raises(ImportError, match=r"mosaicaug\.torchvision: needs torchvision.*pip install torchvision"):
        importlib.import_module("mosaicaug.torchvision")


def test_eval_leaves_a_batch_alone() -> None:
    images, labels = tv_tensors.Image(torch.rand(4, 3, 16, 16)), torch.arange(4)
    for aug in (CutMix(num_classes=4), SnapMix(num_classes=4)):
        made, soft = V2Transform(aug).eval()(images, labels)
        assert torch.equal(made, images)
        assert torch.equal(soft, torch.eye(4))
