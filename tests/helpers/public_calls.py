"""Every public function of `mosaicaug` on small inputs that torch's global state cannot change.

``python -m tests.helpers.public_calls FILE`` imports the package under another default device, another default dtype
and in inference mode, and saves what the functions give.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves


def make(*shape: int, dtype: torch.dtype = torch.float32, high: int = 256) -> Tensor:
    """Tensor on the CPU whose values depend on its shape alone."""
    count = torch.Size(shape).numel()
    values = torch.arange(count, device="cpu", dtype=torch.int64) * 2654435761 % 1000003 % high
    values = values.view(shape)
    return values.to(dtype) / high if dtype.is_floating_point else values.to(dtype)


def list_calls() -> dict[str, Callable[[], Any]]:
    """Calls by name; each draws from a generator of its own or from the seeded global one."""
    m = importlib.import_module("mosaicaug")
    images, bytes_, labels = (
        make(4, 3, 13, 18),
        make(4, 3, 13, 18, dtype=torch.uint8),
        make(4, dtype=torch.int64, high=5),
    )
    soft, maps, features = make(4, 5), make(4, 3, 3), make(4, 6, 3, 3)
    masks, points = make(4, 13, 18, dtype=torch.int64), make(4, 2, 2) * 12
    boxes = torch.cat([points * 0.5, points * 0.5 + 4], 2)
    window, index = torch.tensor([[0, 1, 0], [2, 0, 1], [1, 2, 1], [0, 0, 0]], device="cpu"), [3, 0, 1, 1]

    def seeded() -> torch.Generator:
        return torch.Generator("cpu").manual_seed(5)

    def call(aug: Any, images: Tensor, labels: Tensor) -> Any:
        return aug(images, labels, generator=seeded())

    def list_fields(aug: Any) -> Any:
        return list(aug.sample(images.shape, generator=seeded()).to_dict().items())

    augs = {
        "mosaic": m.RecursiveMosaic(2),
        "mosaic per batch": m.RecursiveMosaic(2, p=0.5, per="batch", permutation="cyclic"),
        "jigsaw": m.Jigsaw(3, permutation="cyclic"),
        "jigsaw p": m.Jigsaw(4, p=0.5),
        "cutmix": m.CutMix(),
        "cutmix drawn": m.CutMix(true_area=False, num_classes=5, p=0.7),
        "mixup": m.MixUp(num_classes=5),
        "snapmix": m.SnapMix(cam=lambda images, _: images.float().mean(1)),
        "compose": m.Compose([m.Jigsaw(3), m.RecursiveMosaic(0), m.MixUp()]),
        "one of": m.OneOf(
            [m.Jigsaw(3), m.CutMix(), m.MixUp(), m.SnapMix(cam=lambda images, _: images.float().mean(1))]
        ),
    }
    calls: dict[str, Callable[[], Any]] = {}
    for name, aug in augs.items():
        calls[name] = partial(call, aug, images, labels)
        calls[f"{name}, uint8"] = partial(call, aug, bytes_, labels)
        calls[f"{name}, soft"] = partial(call, aug, images, soft)
        calls[f"{name}, plan"] = partial(list_fields, aug)

    def plan_of(name: str) -> Any:
        return augs[name].sample(images.shape, generator=seeded())

    def cropped(name: str) -> Tensor:
        plan = augs[name].sample((4, 3, 11, 16), generator=seeded())
        mean = [0.1, 0.2, 0.7]
        made: Tensor = m.apply(
            bytes_, plan, window=window, index=index, mean=mean, std=[1.5, 2, 3], dtype=torch.float32
        )
        return made

    def list_followers(name: str) -> list[Any]:
        plan = augs[name].sample(images.shape, generator=seeded())
        return [
            m.apply_masks(masks, plan),
            m.apply_boxes(boxes, plan),
            m.apply_boxes(boxes, plan, pieces="largest"),
            m.apply_keypoints(points, plan),
            m.mix_labels(plan, labels, maps=maps, num_classes=5),
            m.Plan.from_dict(plan.to_dict()).opacity,
        ]

    for name in ("jigsaw", "cutmix", "mixup", "snapmix"):
        calls[f"apply, {name}"] = partial(cropped, name)
        calls[f"followers, {name}"] = partial(list_followers, name)
    calls["phases"] = lambda: m.RecursiveMosaic.phases(images, 2, chain="shared", generator=seeded())
    calls["algebra"] = lambda: plan_of("jigsaw").compose(plan_of("jigsaw").invert().refine(1)).tiles
    calls["taken"] = lambda: m.apply_keypoints(points, plan_of("cutmix")).take(labels[:, None].expand(4, 2))
    calls["to_soft"] = lambda: m.mix_labels(plan_of("cutmix"), labels).to_soft(5)
    calls["activation map"] = lambda: m.class_activation_map(features, soft[:, [0] * 6] + 1, soft[:, 0], labels % 4)
    calls["activation map, soft"] = lambda: m.class_activation_map(features, make(5, 6), None, soft)
    calls["loss"] = lambda: m.cross_entropy(soft, m.mix_labels(plan_of("cutmix"), labels))
    calls["loss, soft"] = lambda: m.cross_entropy(soft, soft)
    calls["loss, lists"] = lambda: m.cross_entropy(soft, labels.tolist())
    calls["lists"] = lambda: augs["cutmix"](images, labels.tolist(), generator=seeded())
    calls["eval"] = lambda: m.CutMix(num_classes=5).eval()(images, labels)
    return calls


def run_all(calls: dict[str, Callable[[], Any]]) -> dict[str, list[Any]]:
    """Results of all calls as flat lists of tensors and numbers."""
    return {name: tree_leaves(call()) for name, call in calls.items()}


def run_strangely() -> dict[str, list[Any]]:
    """Results after an import, and of calls, under another default device and dtype and in inference mode."""
    torch.set_default_device("meta")
    torch.set_default_dtype(torch.float64)
    with torch.inference_mode():
        return run_all(list_calls())


if __name__ == "__main__":
    found = run_strangely()
    torch.set_default_device("cpu")
    torch.save(found, sys.argv[1])
