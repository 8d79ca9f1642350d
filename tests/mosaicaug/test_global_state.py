"""Torch's global state: every public function gives the same values under another default device, mode or transform."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torchvision import tv_tensors

from mosaicaug import (
    CutMix,
    Jigsaw,
    MixUp,
    OneOf,
    Plan,
    RecursiveMosaic,
    SnapMix,
    Targets,
    apply,
    apply_boxes,
    apply_keypoints,
    apply_masks,
    class_activation_map,
    cross_entropy,
    mix_labels,
)
from mosaicaug.kornia import RandomCutMix, RandomJigsaw
from mosaicaug.timm import Mixup
from mosaicaug.torchvision import V2Transform
from tests.helpers.defaults import default_dtype
from tests.helpers.forked import run_forked
from tests.helpers.oracle import seeded
from tests.helpers.public_calls import list_calls, run_all

ROOT = Path(__file__).parents[2]
IMAGES, LABELS = torch.rand(4, 3, 12, 16, generator=seeded(1)), torch.arange(4)
TILES_AND_MIXES = [RecursiveMosaic(2), Jigsaw(3), CutMix(), MixUp(), SnapMix()]


def name_of(value: Any) -> str:
    return type(value).__name__


def differ(want: dict[str, list[Any]], got: dict[str, list[Any]]) -> list[str]:
    """Names of the calls that gave other values or other tensors."""
    return [
        name for name, values in want.items() if len(values) != len(got[name]) or not all(map(same, values, got[name]))
    ]


def same(want: Any, got: Any) -> bool:
    if not isinstance(want, Tensor):
        return bool(want == got)
    return (want.dtype, want.device) == (got.dtype, got.device) and torch.equal(want, got)


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(mode=True)
    yield
    torch.use_deterministic_algorithms(mode=False)


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    yield
    torch.set_num_threads(before)


STATES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "default device meta": lambda: torch.device("meta"),
    "default dtype float64": lambda: default_dtype(torch.float64),
    "default dtype float16": lambda: default_dtype(torch.float16),
    "default dtype bfloat16": lambda: default_dtype(torch.bfloat16),
    "inference mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "deterministic algorithms": deterministic,
    "three threads": lambda: threads(3),
    "forward mode": forward_ad.dual_level,
}


@pytest.mark.parametrize("enter", STATES.values(), ids=STATES)
def test_public_functions_give_the_same_in_every_state(enter: Callable[[], AbstractContextManager[Any]]) -> None:
    want = run_all(list_calls())
    with enter():
        got = run_all(list_calls())
    assert differ(want, got) == []


def test_public_functions_give_the_same_after_an_import_in_another_state(tmp_path: Path) -> None:
    done = run_forked("-m", "tests.helpers.public_calls", str(tmp_path / "found.pt"), cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    assert differ(run_all(list_calls()), torch.load(tmp_path / "found.pt")) == []


@pytest.mark.parametrize("aug", TILES_AND_MIXES, ids=name_of)
def test_training_follows_inference_mode(aug: Any) -> None:
    """Cached tables, kept plans, and the user's own tensors were all made in inference mode."""
    size = (12, 17 + len(aug.name))  # of tables that no other test has made
    images, maps = torch.rand(4, 3, *size), torch.rand(4, 5, 6, requires_grad=True)
    with torch.inference_mode():
        plan = aug.sample(images.shape)
        copied = Plan.from_dict(plan.to_dict())
        weights = mix_labels(plan, LABELS, maps=maps)
        index, window = torch.tensor([0, 1, 2, 3]), torch.zeros(4, 3, dtype=torch.int64)
    given = images.clone().requires_grad_()
    for one in (plan, copied):
        for made in (
            apply(given, one),
            apply(given, one, index=index),
            apply(given, one, index=index, window=window),
        ):
            [gradient] = torch.autograd.grad((made**2).sum(), given)
            assert gradient.count_nonzero() > 0
    again = mix_labels(plan, LABELS, maps=maps)
    assert isinstance(again, Targets)
    assert isinstance(weights, Targets)
    assert torch.equal(again.weight_a, weights.weight_a)
    torch.autograd.grad(again.weight_a.sum(), maps)


class NoDoubles(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """'meta' is a device without float64, as MPS is."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor) and leaf.is_meta and leaf.dtype == torch.float64:
                raise TypeError(f"{func}: no float64 here")
        return made


def test_no_float64_is_made_on_the_images_device() -> None:
    images, labels = torch.rand(4, 3, 12, 16, device="meta"), torch.zeros(4, dtype=torch.int64, device="meta")
    maps, soft = torch.rand(4, 3, 3, device="meta"), torch.rand(4, 5, device="meta")
    masks = torch.zeros(4, 12, 16, dtype=torch.int64, device="meta")
    boxes, points = torch.zeros(4, 2, 4, device="meta"), torch.zeros(4, 2, 2, device="meta")
    with tv_tensors.set_return_type("TVTensor"):
        typed = tv_tensors.BoundingBoxes(boxes[0], format="XYXY", canvas_size=(12, 16)).repeat(4, 1, 1)
    with NoDoubles():  # type: ignore[no-untyped-call]
        for aug in TILES_AND_MIXES:
            made, _ = aug(images, labels, maps=maps)
            assert made.is_meta
            plan = aug.last_plan
            assert plan is not None
            for given in (labels, soft):
                targets = mix_labels(plan, given, maps=maps)
                assert cross_entropy(soft, targets).is_meta
            assert mix_labels(plan, labels, maps=maps, num_classes=5).is_meta  # type: ignore[union-attr]
            assert apply_masks(masks, plan).dtype == torch.int64
            assert apply_boxes(boxes, plan, pieces="largest").values.is_meta
            assert apply_keypoints(points, plan).values.is_meta
            assert apply(images, plan, mean=[0.5] * 3, std=[0.5] * 3).is_meta
        assert class_activation_map(torch.rand(4, 5, 3, 3, device="meta"), soft, None, labels).is_meta
        V2Transform(Jigsaw(2))(tv_tensors.Image(images), typed)
        Mixup(cutmix_alpha=1.0, num_classes=5)(images, labels)
        RandomCutMix(num_classes=5)(images, labels)
        RandomJigsaw()(images)


@pytest.mark.parametrize("aug", TILES_AND_MIXES, ids=name_of)
def test_transforms_of_torch_func_follow_a_plan(aug: Any) -> None:
    plan, given = aug.sample(IMAGES.shape), torch.stack([IMAGES, 1 - IMAGES])
    weight = torch.rand(IMAGES.shape)

    def weigh(images: Tensor) -> Tensor:
        return (weight * apply(images, plan)).sum()

    followed = IMAGES.clone().requires_grad_()
    [gradient] = torch.autograd.grad(weigh(followed), followed)
    assert torch.equal(torch.func.grad(weigh)(IMAGES), gradient)
    tangent: Tensor = torch.func.jvp(lambda images: apply(images, plan), (IMAGES,), (given[1],))[1]
    assert torch.allclose(tangent, apply(given[1], plan), atol=1e-6)
    with forward_ad.dual_level():
        dual = apply(forward_ad.make_dual(IMAGES, given[1]), plan)  # type: ignore[no-untyped-call]
        assert torch.allclose(forward_ad.unpack_dual(dual).tangent, apply(given[1], plan), atol=1e-6)  # type: ignore[no-untyped-call]
    functions: list[tuple[Callable[[Tensor], Any], Tensor]] = [
        (lambda x: apply(x, plan), given),
        (lambda x: apply(x, plan, window=[[0, 0, 1]] * 4, index=[1, 1, 0, 3]), given),
        (lambda x: apply_masks(x, plan), (given * 9).long()),
        (lambda x: apply_boxes(x, plan, pieces="largest").values, torch.tensor([[[[1.0, 2, 9, 8]]] * 4] * 2)),
        (lambda x: apply_keypoints(x, plan).values, given[:, :, :2, 0, :2] * 9),
        (lambda x: mix_labels(plan, x, num_classes=9), torch.stack([LABELS, LABELS + 3])),
    ]
    for function, values in functions:
        want = torch.stack([function(value) for value in values])
        assert torch.allclose(torch.vmap(function)(values), want, atol=1e-6)


def test_indices_may_be_mapped_over() -> None:
    plan, index = Jigsaw(2).sample((2, 3, 12, 16)), torch.tensor([[0, 3], [2, 2]])
    made = torch.vmap(lambda i: apply(IMAGES, plan, index=i))(index)
    assert torch.equal(made, torch.stack([apply(IMAGES, plan, index=i) for i in index]))


@pytest.mark.parametrize("aug", [*TILES_AND_MIXES[:4], OneOf([CutMix(), Jigsaw(2)])], ids=name_of)
def test_a_draw_within_a_transform_is_the_draw_without_it(aug: Any) -> None:
    def call(images: Tensor) -> Tensor:
        made: Tensor = aug(images, LABELS, generator=seeded(3))[0]
        return made

    assert torch.equal(torch.func.vjp(call, IMAGES)[0], call(IMAGES))
    both = torch.vmap(call, randomness="same")(torch.stack([IMAGES, 1 - IMAGES]))
    assert torch.allclose(both, torch.stack([call(IMAGES), call(1 - IMAGES)]), atol=1e-6)
    for randomness in ("error", "different"):
        with pytest.raises(RuntimeError, match=r"one plan for all entries of a vmap; use vmap\(randomness='same'\)"):
            torch.vmap(call, randomness=randomness)(IMAGES[None])


def test_gradients_that_apply_does_not_make_are_refused() -> None:
    plan = Plan.identity(4, (12, 16))
    for name in ("mean", "std"):
        with pytest.raises(ValueError, match=rf"^apply: {name} gets no gradient; pass {name}.detach\(\)$"):
            apply(IMAGES, plan, **{name: torch.ones(3, requires_grad=True)})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^apply: out= does not record gradients; leave it out"):
        torch.func.grad(lambda x: apply(x, plan, out=torch.empty(4, 3, 12, 16)).sum())(IMAGES)
    with pytest.raises(ValueError, match=r"^apply: backend='triton' records no gradients and follows no torch.func"):
        torch.func.grad(lambda x: apply(x, plan, backend="triton").sum())(IMAGES)


def test_half_precision_logits_meet_labels_as_they_are() -> None:
    logits, soft = torch.randn(4, 5), torch.rand(4, 5)
    want = cross_entropy(logits.bfloat16().float(), soft)
    assert torch.equal(cross_entropy(logits.bfloat16(), soft, weight=torch.ones(5, dtype=torch.bfloat16)), want)
