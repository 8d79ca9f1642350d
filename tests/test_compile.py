"""`apply` under `torch.compile`: one opaque operator, and the same pixels and gradients as without."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mosaicaug import CutMix, Jigsaw, MixUp, Plan, RecursiveMosaic, SnapMix, apply

AUGMENTATIONS = [RecursiveMosaic(2), Jigsaw(3), CutMix(), MixUp(), SnapMix(1.0)]
OPTIONS: dict[str, Any] = {"mean": [0.5, 0.25, 0.125], "std": [0.5, 0.25, 0.75]}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def arguments_of(images: Tensor, plan: Plan) -> tuple[Any, ...]:
    fields = (plan.tiles, plan.overlay, plan.from_box, plan.to_box, plan.opacity)
    return (images, *fields, *plan.size, None, None, None, None, torch.float32, False, "auto", False)


@pytest.mark.parametrize("aug", AUGMENTATIONS, ids=lambda aug: aug.name)
def test_fullgraph_sees_one_operator(aug: Any, device: torch.device) -> None:
    """Twice, with another plan: nothing of the first may be baked in, and nothing may compile anew."""
    seen: list[torch.fx.GraphModule] = []

    def remember(graph: torch.fx.GraphModule, _: Any) -> Any:
        seen.append(graph)
        return graph.forward

    torch.compiler.reset()
    compiled = torch.compile(lambda x, plan: 2 * apply(x, plan, **OPTIONS), fullgraph=True, backend=remember)
    images = torch.rand(4, 3, 13, 18, generator=seeded(1)).to(device)
    for seed in (2, 3, 4):
        plan = aug.sample(images.shape, generator=seeded(seed))
        assert torch.equal(compiled(images, plan), 2 * apply(images, plan, **OPTIONS))
    [graph] = seen
    assert [node.target for node in graph.graph.nodes if "mosaicaug" in str(node.target)] == [torch.ops.mosaicaug.apply]


@pytest.mark.parametrize("aug", AUGMENTATIONS, ids=lambda aug: aug.name)
def test_gradients_are_those_of_the_reference(aug: Any, device: torch.device) -> None:
    torch.compiler.reset()
    images = torch.rand(4, 3, 13, 18, generator=seeded(1), dtype=torch.float64).to(device)
    plan = aug.sample(images.shape, generator=seeded(2))
    weight = torch.rand(4, 3, 13, 18, generator=seeded(3), dtype=torch.float64).to(device)

    def step(x: Tensor, plan: Plan) -> Tensor:
        return (weight * apply(x, plan, **OPTIONS)).sum()

    gradients: list[Tensor] = []
    for function in (step, torch.compile(step, fullgraph=True, backend="aot_eager")):
        x = images.clone().requires_grad_()
        gradients += torch.autograd.grad(function(x, plan), x)
    assert torch.equal(*gradients)
    assert gradients[0].count_nonzero() > 0


def test_everything_in_one_pass_compiles(device: torch.device) -> None:
    torch.compiler.reset()
    stored = torch.randint(0, 256, (6, 3, 20, 24), generator=seeded(1), dtype=torch.uint8).to(device)
    plan = Jigsaw(4).sample((4, 3, 16, 16), generator=seeded(2))
    options: dict[str, Any] = {
        "index": torch.tensor([5, 0, 0, 3], device=device),
        "window": torch.tensor([[0, 0, 1], [4, 8, 0], [1, 2, 1], [3, 3, 0]], device=device),
        "dtype": torch.bfloat16,
        "memory_format": torch.channels_last,
        **OPTIONS,
    }
    want = apply(stored, plan, **options)
    got = torch.compile(lambda x, p: apply(x, p, **options), fullgraph=True, backend="aot_eager")(stored, plan)
    assert torch.equal(got, want)
    assert got.stride() == want.stride()


@pytest.mark.parametrize("aug", AUGMENTATIONS, ids=lambda aug: aug.name)
def test_the_operator_keeps_the_rules_of_operators(aug: Any) -> None:
    images = torch.rand(4, 3, 13, 18, generator=seeded(1))
    plan = aug.sample(images.shape, generator=seeded(2))
    for needs_grad in (False, True):
        torch.library.opcheck(torch.ops.mosaicaug.apply, arguments_of(images.clone().requires_grad_(needs_grad), plan))


def test_values_are_checked_when_the_operator_runs() -> None:
    torch.compiler.reset()
    compiled = torch.compile(lambda x, p, i: apply(x, p, index=i), fullgraph=True, backend="aot_eager")
    with pytest.raises(ValueError, match=r"apply: index must lie in 0..3, got 0..4"):
        compiled(torch.rand(4, 3, 8, 8), Plan.identity(2, (8, 8)), torch.tensor([0, 4]))
