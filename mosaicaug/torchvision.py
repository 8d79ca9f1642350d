"""Transform of torchvision v2 around any augmentation: images with their masks, boxes, keypoints and labels.

Plain tensors need no wrapper, since ``v2.Compose([RecursiveMosaic(3)])(images)`` and
``v2.Compose([CutMix()])(images, labels)`` call the augmentations themselves. `V2Transform` is for ``tv_tensors`` and
for samples of any structure, in a data set's ``transform`` or in a ``collate_fn``:

Examples:
    >>> import torch
    >>> from mosaicaug import CutMix, RecursiveMosaic
    >>> from mosaicaug.torchvision import V2Transform
    >>> from torch.utils.data import default_collate
    >>> from torchvision import tv_tensors
    >>> from torchvision.transforms import v2
    >>> transform = v2.Compose([v2.RandomHorizontalFlip(), V2Transform(RecursiveMosaic(r=2))])
    >>> image, mask = tv_tensors.Image(torch.rand(3, 32, 32)), tv_tensors.Mask(torch.zeros(32, 32, dtype=torch.long))
    >>> sample = transform({"image": image, "mask": mask, "label": 3})
    >>> [type(value).__name__ for value in sample.values()]
    ['Image', 'Mask', 'int']
    >>> cutmix = V2Transform(CutMix(num_classes=10))
    >>> def collate(samples):
    ...     with tv_tensors.set_return_type("TVTensor"):  # otherwise stacking leaves plain tensors
    ...         return cutmix(default_collate(samples))
    >>> batch = collate([sample] * 4)
    >>> type(batch["mask"]).__name__, batch["label"].shape
    ('Mask', torch.Size([4, 10]))
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from mosaicaug.annotations import Placed, apply_boxes, apply_keypoints, apply_masks
from mosaicaug.apply import apply
from mosaicaug.augmentation import Augmentation
from mosaicaug.checks import convert_labels, exact_dtype
from mosaicaug.plan import Plan
from mosaicaug.targets import Targets

try:
    import PIL.Image
    from torchvision import tv_tensors
    from torchvision.transforms import v2
    from torchvision.transforms.v2.functional import convert_bounding_box_format, is_pure_tensor
except ModuleNotFoundError as error:
    if error.name is None or error.name.partition(".")[0] not in ("torchvision", "PIL"):
        raise
    raise ImportError(
        f"mosaicaug.torchvision: needs {error.name.partition('.')[0]}, which is missing; pip install torchvision"
    ) from error

LabelsGetter = Callable[[Any], Any] | Literal["default"] | None

_XYXY = tv_tensors.BoundingBoxFormat.XYXY


class V2Transform(v2.Transform):  # type: ignore[misc]  # torchvision ships no types
    """Transform of torchvision v2 around an augmentation.

    It takes what v2's transforms take (several arguments, tuples, dicts, nested) and gives back the same structure,
    types and metadata; what it does not know passes through, and the input is not changed. One plan is drawn for all
    that is in a call, as the augmentation alone would draw it.

    =================  =========================  =============================
    type               one sample                 batch
    =================  =========================  =============================
    Image              ``[C, H, W]``              ``[B, C, H, W]``
    Video              ``[T, C, H, W]``           ``[B, T, C, H, W]``
    Mask               ``[H, W]``, ``[N, H, W]``  ``[B, H, W]``, ``[B, N, H, W]``
    BoundingBoxes      ``[N, 4]``                 ``[B, N, 4]``
    KeyPoints          ``[K, 2]``, ``[N, K, 2]``  ``[B, K, 2]``, ``[B, N, K, 2]``
    =================  =========================  =============================

    - Where there is neither Image nor Video, the first plain tensor is the image, of either's batch shape, as in v2.
    - What mixes needs a batch: call it in a ``collate_fn``. Tiles of single samples can be moved in a data set too.
    - Boxes keep their slots, and with them their labels: each becomes its largest piece, and one that vanishes becomes
      empty, which ``v2.SanitizeBoundingBoxes`` removes with its label. Mixing appends the partner's: ``[B, 2N, 4]``.
      `mosaicaug.apply_boxes` gives all pieces by ``augmentation.last_plan``.
    - Keypoints keep their slots; those that vanish become NaN (integers: -1), which ``v2.SanitizeKeyPoints`` removes.
      Mixing appends the partner's.
    - Masks are moved, never blended. Mixing lays plane n of the partner over plane n.

    Args:
        augmentation: any of `mosaicaug`, also `mosaicaug.Compose` and `mosaicaug.OneOf`.
        labels_getter: where what mixes finds labels; tiles leave them alone. "default", as in torchvision's CutMix: the
            second argument, or the key "labels", or else one with "label" in it, of the only or the second argument. A
            callable is given the input and returns one of its tensors. None: there are none, by design.
            Integer ``[B]`` and soft ``[B, K]`` labels become `mosaicaug.Targets` or soft labels, as the augmentation
            makes them; integer ``[B, N]`` beside boxes ``[B, N, 4]`` become ``[B, 2N]``, -1 for what vanished.

    Raises:
        TypeError: no image, or a PIL image; ``augmentation`` is none of `mosaicaug`.
        ValueError: labels are missing or no part of the input; images, masks, boxes, keypoints and labels do not fit
            each other; boxes are rotated, or reach beyond the image (checked on the CPU).

    Examples:
        >>> import torch
        >>> from mosaicaug import Jigsaw
        >>> from mosaicaug.torchvision import V2Transform
        >>> from torchvision import tv_tensors
        >>> boxes = tv_tensors.BoundingBoxes([[0, 0, 12, 12]], format="XYXY", canvas_size=(32, 32))
        >>> image, target = tv_tensors.Image(torch.rand(3, 32, 32)), {"boxes": boxes, "labels": torch.tensor([7])}
        >>> image, target = V2Transform(Jigsaw(2))(image, target)
        >>> target["boxes"].shape, target["labels"].tolist()
        (torch.Size([1, 4]), [7])
    """

    def __init__(self, augmentation: Augmentation, *, labels_getter: LabelsGetter = "default") -> None:
        super().__init__()
        if not isinstance(augmentation, Augmentation):
            raise TypeError(f"V2Transform: needs an augmentation of mosaicaug, got {type(augmentation).__name__}")
        if not (labels_getter in ("default", None) or callable(labels_getter)):
            raise ValueError(f"V2Transform: labels_getter must be 'default', a callable or None, got {labels_getter!r}")
        self.augmentation, self.labels_getter = augmentation, labels_getter

    def forward(self, *inputs: Any) -> Any:
        """Augment a sample or a batch of any structure: the same structure comes back."""
        given = inputs if len(inputs) > 1 else inputs[0]
        leaves, structure = tree_flatten(given)
        images = _number_images(leaves)
        single = self._check_images([leaves[place] for place in images])
        labels = self._get_labels(given, leaves) if self.augmentation.mixes else None
        plan, targets = self._draw(_to_batch(leaves[images[0]], single), labels, leaves)

        def follow(place: int, leaf: Any) -> Any:
            if place in images:
                return _to_type_of(apply(_to_batch(leaf, single), plan), leaf, single)
            if isinstance(leaf, tv_tensors.Mask):
                return _to_type_of(apply_masks(_to_batch(leaf, single), plan), leaf, single)
            if isinstance(leaf, tv_tensors.BoundingBoxes):
                return _to_type_of(_move_boxes(leaf, plan, single).values, leaf, single)
            if isinstance(leaf, tv_tensors.KeyPoints):
                return _to_type_of(_move_keypoints(leaf, plan, single), leaf, single)
            return targets if leaf is labels and targets is not None else leaf

        return tree_unflatten([follow(place, leaf) for place, leaf in enumerate(leaves)], structure)

    def _check_images(self, images: list[Tensor]) -> bool:
        """True for a single sample, False for a batch; ValueError if images disagree."""
        single = [image.ndim == (4 if isinstance(image, tv_tensors.Video) else 3) for image in images]
        kinds = {(one, 1 if one else len(image), *image.shape[-2:]) for one, image in zip(single, images, strict=True)}
        if len(kinds) > 1:
            shapes = [list(image.shape) for image in images]
            raise ValueError(
                f"V2Transform: images of one call share a plan, so batch and size must agree, got {shapes}"
            )
        if single[0] and self.augmentation.mixes:
            raise ValueError(
                f"V2Transform: {self.augmentation.name} mixes images of a batch, got one of {list(images[0].shape)}; "
                "call it in a DataLoader's collate_fn, or after the DataLoader"
            )
        return single[0]

    def _get_labels(self, given: Any, leaves: list[Any]) -> Tensor | None:
        """Labels by ``labels_getter``, one of the input's tensors; None if there are none by design."""
        if self.labels_getter is None:
            return None
        labels = self.labels_getter(given) if callable(self.labels_getter) else _default_labels(given)
        if labels is None:
            raise ValueError(
                f"V2Transform: {self.augmentation.name} mixes labels too, found none; pass them as the second argument "
                "or under a key 'labels', or build it with labels_getter=a callable, or None if there are none"
            )
        if not isinstance(labels, Tensor) or not any(leaf is labels for leaf in leaves):
            raise ValueError(f"V2Transform: labels must be a tensor of the input, got {type(labels).__name__}")
        return labels

    def _draw(self, images: Tensor, labels: Tensor | None, leaves: list[Any]) -> tuple[Plan, Tensor | Targets | None]:
        """Draw the plan as the augmentation itself would, and mix the labels."""
        aug = self.augmentation
        boxes = next((leaf for leaf in leaves if isinstance(leaf, tv_tensors.BoundingBoxes)), None)
        if labels is None:
            return aug.sample(images.shape), None
        if boxes is not None and not labels.is_floating_point() and labels.shape == boxes.shape[:-1]:
            plan = aug.sample(images.shape)
            return plan, _move_boxes(boxes, plan, single=False).take(labels)
        labels = convert_labels(aug.name, labels, len(images), aug.num_classes)
        return aug.draw_with_labels(images, labels)


def _number_images(leaves: list[Any]) -> list[int]:
    """Numbers of the leaves that are images, by v2's rule."""
    if any(isinstance(leaf, PIL.Image.Image) for leaf in leaves):
        raise TypeError("V2Transform: images must be tensors, got a PIL image; put v2.ToImage() before")
    typed = [place for place, leaf in enumerate(leaves) if isinstance(leaf, (tv_tensors.Image, tv_tensors.Video))]
    plain = [place for place, leaf in enumerate(leaves) if is_pure_tensor(leaf)]
    if not typed and not plain:
        raise TypeError(f"V2Transform: found no image among {[type(leaf).__name__ for leaf in leaves]}")
    return typed or plain[:1]


def _default_labels(given: Any) -> Any:
    """Labels by the rule of torchvision's CutMix and MixUp; None if there are none."""
    if isinstance(given, (tuple, list)):
        given = given[1] if len(given) > 1 else None
        if is_pure_tensor(given):
            return given
    if not isinstance(given, Mapping):
        return None
    keys = [key for key in given if "label" in str(key).lower()]
    exact = [key for key in keys if str(key).lower() == "labels"]
    return given[(exact or keys)[0]] if keys else None


def _move_boxes(boxes: Any, plan: Plan, single: bool) -> Placed:
    """Boxes in their own format and dtype, each in its slot."""
    if tv_tensors.is_rotated_bounding_format(boxes.format):
        raise ValueError(
            f"V2Transform: boxes must be XYXY, XYWH or CXCYWH, got {boxes.format.value}, which are rotated"
        )
    _check_canvas("boxes", boxes, plan)
    given = _to_batch(boxes, single)
    given = given.to(exact_dtype(given.device))  # there and back, for every dtype of boxes
    corners = convert_bounding_box_format(given, old_format=boxes.format, new_format=_XYXY)
    placed = apply_boxes(corners, plan, pieces="largest")
    values = convert_bounding_box_format(placed.values, old_format=_XYXY, new_format=boxes.format)
    return Placed((values if boxes.is_floating_point() else values.round()).to(boxes.dtype), placed.source)


def _move_keypoints(keypoints: Any, plan: Plan, single: bool) -> Tensor:
    """Keypoints in their own shape, each in its slot; NaN or -1 where one vanished."""
    _check_canvas("keypoints", keypoints, plan)
    given = _to_batch(keypoints, single)
    placed = apply_keypoints(given.flatten(1, -2), plan)
    floating, gone = given.is_floating_point(), (placed.source < 0)[..., None]
    values = placed.values if floating else placed.values.round().to(given.dtype)
    return values.masked_fill(gone, math.nan if floating else -1).view(len(plan), -1, *given.shape[2:])


def _check_canvas(name: str, annotation: Any, plan: Plan) -> None:
    """ValueError unless the annotation is for images of the plan's size."""
    if tuple(annotation.canvas_size) != plan.size:
        raise ValueError(f"V2Transform: {name} have canvas_size {annotation.canvas_size}, images are {plan.size} px")


def _to_batch(leaf: Tensor, single: bool) -> Tensor:
    """Plain tensor with a batch axis."""
    plain = leaf if is_pure_tensor(leaf) else leaf.as_subclass(Tensor)
    return plain[None] if single else plain


def _to_type_of(made: Tensor, like: Tensor, single: bool) -> Any:
    """Tensor of the type and rank of ``like``."""
    made = made[0] if single else made
    if isinstance(like, tv_tensors.BoundingBoxes):  # which torchvision wraps as [N, 4] only
        with tv_tensors.set_return_type("TVTensor"):
            return tv_tensors.wrap(made.flatten(0, -2), like=like).view(made.shape)
    return made if is_pure_tensor(like) else tv_tensors.wrap(made, like=like)
