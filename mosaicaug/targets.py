"""Labels of mixed images, computed from their plan, and the loss that takes them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mosaicaug.checks import check_integer, check_num_classes, check_tensor, convert_labels, convert_tensor, exact_dtype
from mosaicaug.plan import Plan, overlay_share

# Asked once: Dynamo of torch 2.11 cannot follow the question.
_AUTOCAST_DEVICES = frozenset(
    name for name in ("cpu", "cuda", "mps", "xpu", "hpu", "mtia", "xla") if torch.amp.is_autocast_available(name)
)


class Targets(NamedTuple):
    """Two labels per image and their weights.

    Attributes:
        labels_a: ``[B]``, label of the image at its own place.
        labels_b: ``[B]``, label of the image laid over it.
        weight_a: float32 ``[B]``, weight of ``labels_a``.
        weight_b: float32 ``[B]``, weight of ``labels_b``; both add up to 1 but for SnapMix, whose weights are semantic.

    Examples:
        >>> import torch
        >>> from mosaicaug import CutMix
        >>> images, targets = CutMix()(torch.rand(4, 3, 32, 32), torch.arange(4))
        >>> targets.to_soft(10).shape
        torch.Size([4, 10])
    """

    labels_a: Tensor
    labels_b: Tensor
    weight_a: Tensor
    weight_b: Tensor

    def to_soft(self, num_classes: int) -> Tensor:
        """Convert to soft labels, float32 ``[B, num_classes]``.

        Args:
            num_classes: K, larger than every label.

        Raises:
            ValueError: ``num_classes`` is missing or not larger than every label (checked for labels on the CPU).
        """
        check_num_classes("Targets.to_soft", num_classes, self.labels_a)
        soft = torch.zeros(len(self.labels_a), num_classes, dtype=torch.float32, device=self.labels_a.device)
        soft = soft.scatter_add(1, self.labels_a.long()[:, None], self.weight_a[:, None])
        return soft.scatter_add(1, self.labels_b.long()[:, None], self.weight_b[:, None])


def mix_labels(
    plan: Plan, labels: Tensor | Sequence[Any], *, maps: Tensor | None = None, num_classes: int | None = None
) -> Targets | Tensor:
    """Mix labels as ``plan`` mixes images.

    Args:
        plan: as drawn for the batch.
        labels: integer ``[B]``, or soft ``[B, K]``, as a tensor, an array or lists.
        maps: class activation maps ``[B, h, w]`` of any resolution: weights are then SnapMix's semantic shares
            (Huang et al. 2021, Eq. 5 to 7, with the published code's rules), otherwise exact pixel shares.
        num_classes: K, to turn integer labels into soft ones.

    Returns:
        ``Targets``; or soft labels, float32 ``[B, K]``, if ``num_classes`` is given or the labels are already soft.

    Raises:
        ValueError: labels or maps do not fit the plan, or ``num_classes`` does not fit the labels.
        TypeError: ``plan`` is not a Plan, or labels are no numbers.

    Examples:
        >>> import torch
        >>> from mosaicaug import MixUp, mix_labels
        >>> aug = MixUp()
        >>> images, _ = aug(torch.rand(4, 3, 32, 32), torch.arange(4))
        >>> mix_labels(aug.last_plan, torch.arange(4), num_classes=10).shape
        torch.Size([4, 10])
    """
    if not isinstance(plan, Plan):
        raise TypeError(f"mix_labels: plan must be a Plan, got {type(plan).__name__}")
    if num_classes is not None:
        num_classes = check_integer("mix_labels", "num_classes", num_classes, 1)
    labels = convert_labels("mix_labels", labels, len(plan), num_classes)
    partner = plan.overlay.to(labels.device, non_blocking=True).long()
    other = labels[partner]
    share = overlay_share(plan)
    weights = ((1 - share.double()).float(), share)
    if maps is not None:
        check_tensor("mix_labels", "maps", maps)
        maps = maps.to(labels.device, non_blocking=True)
        weights = _semantic_weights(plan, maps, _equal_labels(labels, other), partner)
    weights = (weights[0].to(labels.device, non_blocking=True), weights[1].to(labels.device, non_blocking=True))
    if labels.is_floating_point():
        return labels.float() * weights[0][:, None] + other.float() * weights[1][:, None]
    targets = Targets(labels, other, *weights)
    return targets if num_classes is None else targets.to_soft(num_classes)


def class_activation_map(
    features: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor | Sequence[Any]
) -> Tensor:
    """Class activation map of each image's own class, without gradient: SnapMix's source of semantic weights.

    ``sum_c weight[label, c] * relu(features[c]) + bias[label]`` (Zhou et al. 2016, Eq. 2; SnapMix's published code).

    Args:
        features: ``[B, C, h, w]``, last feature maps; negative values count as 0.
        weight: ``[K, C]``, of the linear classifier on the pooled features.
        bias: ``[K]`` likewise, or None.
        labels: integer ``[B]``, or soft ``[B, K]`` (maps are averaged by label weight).

    Returns:
        ``[B, h, w]``.

    Raises:
        ValueError: labels do not fit the features or the classifier.

    Examples:
        >>> import torch
        >>> from mosaicaug import class_activation_map
        >>> maps = class_activation_map(torch.rand(2, 8, 7, 7), torch.rand(5, 8), None, torch.tensor([0, 4]))
        >>> maps.shape
        torch.Size([2, 7, 7])
    """
    for name, value in {"features": features, "weight": weight}.items():
        check_tensor("class_activation_map", name, value)
    labels = convert_labels("class_activation_map", labels, len(features), len(weight), features.device)
    with torch.no_grad(), _full_precision(features.device):
        soft = labels.is_floating_point()
        rows = labels.to(weight.dtype) @ weight if soft else weight[labels.long()]  # [B, C]
        maps = torch.einsum("bchw,bc->bhw", features.relu(), rows.to(features.dtype))
        if bias is None:
            return maps
        shift = labels.to(bias.dtype) @ bias if soft else bias[labels.long()]
        return maps + shift[:, None, None].to(maps.dtype)


def cross_entropy(logits: Tensor, targets: Tensor | Targets | Sequence[Any], **kw: Any) -> Tensor:
    """Cross entropy of hard labels, soft labels or `Targets`.

    The loss of mixed images is ``mean(weight_a * CE(logits, labels_a) + weight_b * CE(logits, labels_b))``, divided by
    the batch size and by nothing else, as in the published codes.

    Args:
        logits: ``[B, K]``.
        targets: integer ``[B]``, soft ``[B, K]`` (tensors, arrays or lists) or ``Targets``.
        **kw: passed on to ``torch.nn.functional.cross_entropy`` (``weight``, ``ignore_index``, ``label_smoothing``,
            ``reduction``).

    Returns:
        A scalar, or ``[B]`` with ``reduction="none"``.

    Raises:
        ValueError: ``reduction`` does not exist.
        TypeError: ``logits`` are no tensor, or targets no numbers.

    Examples:
        >>> import torch
        >>> from mosaicaug import Targets, cross_entropy
        >>> targets = Targets(torch.tensor([0]), torch.tensor([1]), torch.tensor([0.75]), torch.tensor([0.25]))
        >>> round(cross_entropy(torch.zeros(1, 4), targets).item(), 4)
        1.3863
    """
    check_tensor("cross_entropy", "logits", logits)
    if not isinstance(targets, Targets):
        targets = convert_tensor("cross_entropy", "targets", targets, logits.device)
        if not targets.is_floating_point() and not (targets.ndim == logits.ndim == 2):
            return F.cross_entropy(logits, targets.long(), **kw)
        # Half precision would round the labels' weights: 0.7 to 0.6992 in bfloat16.
        wide = torch.promote_types(logits.dtype, targets.dtype)
        if kw.get("weight") is not None:
            kw["weight"] = kw["weight"].to(wide)
        return F.cross_entropy(logits.to(wide), targets.to(wide), **kw)
    reduction = kw.pop("reduction", "mean")
    losses = targets.weight_a * F.cross_entropy(logits, targets.labels_a.long(), reduction="none", **kw)
    losses = losses + targets.weight_b * F.cross_entropy(logits, targets.labels_b.long(), reduction="none", **kw)
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"cross_entropy: reduction must be 'mean', 'sum' or 'none', got {reduction!r}")
    return losses if reduction == "none" else losses.sum() if reduction == "sum" else losses.mean()


def _semantic_weights(plan: Plan, maps: Tensor, same: Tensor, partner: Tensor) -> tuple[Tensor, Tensor]:
    """SnapMix's weights ``[B]`` of the own and the partner's label; ``same`` where both are of one class."""
    if maps.ndim != 3 or len(maps) != len(plan):
        raise ValueError(f"mix_labels: maps must be [{len(plan)}, h, w], got {list(maps.shape)}")
    boxes = torch.stack([plan.to_box, plan.from_box]).to(maps.device, non_blocking=True).long()  # [2, B, 4]
    weight_a = 1 - _mass(maps, boxes[0], plan.size)
    weight_b = _mass(maps[partner], boxes[1], plan.size)
    both = weight_a + weight_b
    weight_a, weight_b = torch.where(same, both, weight_a), torch.where(same, both, weight_b)
    share = overlay_share(plan).to(maps.device, non_blocking=True).to(weight_a.dtype)
    # A constant map has no mass (0 / 0): its weight falls back to the target box's area.
    weight_a = torch.where(weight_a.isnan(), 1 - share, weight_a)
    weight_b = torch.where(weight_b.isnan(), share, weight_b)
    mixed = plan.has_overlay.to(maps.device, non_blocking=True)
    return torch.where(mixed, weight_a, 1.0).float(), torch.where(mixed, weight_b, 0.0).float()


def _mass(maps: Tensor, box: Tensor, size: tuple[int, int]) -> Tensor:
    """Share of each map's mass that lies in its box, `exact_dtype` ``[B]``; NaN for a constant map.

    The mass is that of the map resized to ``size``, bilinear, with its minimum subtracted. Resizing is linear along
    each axis: sums over boxes need the cumulated weights of the resizing alone, and no map of full size.
    """
    maps, (y0, x0, y1, x1) = maps.to(exact_dtype(maps.device)), box.unbind(1)
    make_weights = _resizing_weights if torch.compiler.is_compiling() else _kept_resizing_weights
    (rows, end_rows), (columns, end_columns) = (
        [matrix.to(maps.dtype).to(maps.device, non_blocking=True) for matrix in make_weights(length, stored)]
        for length, stored in zip(size, maps.shape[1:], strict=True)
    )
    with _full_precision(maps.device):
        inside = torch.einsum("bh,bhw,bw->b", rows[y1] - rows[y0], maps, columns[x1] - columns[x0])
        total = torch.einsum("h,bhw,w->b", rows[-1], maps, columns[-1])
        ends = (end_rows @ maps @ end_columns.T).flatten(1)
    least, most = ends.amin(1), ends.amax(1)  # torch 2.11 has no gradient of aminmax
    # Interpolation leaves rounding noise on a constant map; one that only varies between the pixels is constant too.
    constant = most - least <= 8 * torch.finfo(maps.dtype).eps * torch.maximum(most, -least)
    share = (inside - least * ((y1 - y0) * (x1 - x0))) / (total - least * (size[0] * size[1]))
    return torch.where(constant, torch.nan, share / (1 + 1e-8))


def _full_precision(device: torch.device) -> AbstractContextManager[Any]:
    """Mode without autocast, which would round sums of activation maps to 8 bits."""
    if device.type in _AUTOCAST_DEVICES:
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


@functools.lru_cache(maxsize=32)
def _kept_resizing_weights(length: int, stored: int) -> tuple[Tensor, Tensor]:
    """`_resizing_weights`, kept as ordinary tensors: training may follow inference."""
    with torch.inference_mode(False):  # noqa: FBT003
        return _resizing_weights(length, stored)


def _resizing_weights(length: int, stored: int) -> tuple[Tensor, Tensor]:
    """Weights that resize ``stored`` values to ``length`` pixels: cumulated, and those of the possible extremes.

    Returns:
        float64 ``[length + 1, stored]``, sum of the weights of the first 0, 1, ... pixels; and ``[k, stored]``, weights
        of the pixels among which the extremes of the resized values must be.
    """
    weights = F.interpolate(torch.eye(stored, dtype=torch.float64, device="cpu")[None], length, mode="linear")[0].T
    pixel = torch.arange(length, dtype=torch.float64, device="cpu")
    place = ((pixel + 0.5) * stored / length - 0.5).clamp(min=0).long()
    # Between two stored values everything is linear, so an extreme is at the first or the last pixel there.
    ends = (place.diff(prepend=place.new_tensor([-1])) != 0) | (place.diff(append=place.new_tensor([stored])) != 0)
    return F.pad(weights.cumsum(0), (0, 0, 1, 0)), weights[ends]


def _equal_labels(labels: Tensor, other: Tensor) -> Tensor:
    """Images whose labels, hard or soft, are equal: bool ``[B]``."""
    return labels == other if labels.ndim == 1 else (labels == other).all(1)
