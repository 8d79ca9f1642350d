"""Augmentations and `apply` under `torch.compile` and `torch.export`: the same pixels and gradients as without."""

from __future__ import annotations

import copy
import io
import logging
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._inductor.utils import fresh_cache
from torch.utils._pytree import tree_flatten, tree_leaves, treespec_dumps, treespec_loads

from mosaicaug import (
    Augmentation,
    Compose,
    CutMix,
    Jigsaw,
    MixUp,
    OneOf,
    Placed,
    Plan,
    RecursiveMosaic,
    SnapMix,
    Targets,
    apply,
    apply_masks,
    cross_entropy,
)
from mosaicaug.augmentation import augmentations
from mosaicaug.timm import Mixup
from mosaicaug.torchvision import V2Transform
from tests.helpers.defaults import default_dtype
from tests.helpers.oracle import seeded

AUGMENTATIONS = [RecursiveMosaic(2), Jigsaw(3), CutMix(), MixUp(), SnapMix(1.0)]
OPTIONS: dict[str, Any] = {"mean": [0.5, 0.25, 0.125], "std": [0.5, 0.25, 0.75]}


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


def make_net() -> nn.Module:
    torch.manual_seed(5)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


class Step(nn.Module):
    """Training step on a batch; it returns the augmented images too, to compare."""

    def __init__(self, aug: Augmentation) -> None:
        super().__init__()
        self.aug, self.net = aug, make_net()

    def forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        made, targets = self.aug(images, labels)
        return made, cross_entropy(self.net(made), targets)


def look(images: Tensor, labels: Tensor) -> Tensor:  # noqa: ARG001
    return images.float().mean(1)


STEPS: list[Augmentation] = [
    RecursiveMosaic(2),
    Jigsaw(3, p=0.5, per="batch"),
    CutMix(num_classes=6, true_area=False),
    MixUp(),
    SnapMix(1.0, cam=look),
    Compose([Jigsaw(2), RecursiveMosaic(2), MixUp(num_classes=6)]),
    Compose([Jigsaw(2), OneOf([CutMix(), SnapMix(cam=look)], [1, 2])]),
    OneOf([Jigsaw(2), RecursiveMosaic(2)], per="batch"),
]


def describe(aug: Augmentation) -> str:
    return "-".join(module.name for module in aug.modules() if isinstance(module, Augmentation))


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("aug", [RecursiveMosaic(2), Jigsaw(3)], ids=lambda aug: aug.name)
def test_sequential_of_augmentation_and_network(aug: Any, backend: str, device: torch.device) -> None:
    torch.compiler.reset()
    model, images = nn.Sequential(aug, make_net()).to(device), torch.rand(4, 3, 12, 20).to(device)
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    results = []
    for function in (model, compiled):
        torch.manual_seed(7)
        results.append(torch.stack([function(images) for _ in range(3)]))
    assert torch.allclose(results[0], results[1], atol=1e-6)
    assert not torch.allclose(results[1][0], results[1][1], atol=1e-6)  # another draw each time


@pytest.mark.parametrize("aug", STEPS, ids=describe)
def test_a_step_draws_as_without_a_compiler(aug: Augmentation) -> None:
    """Three batches one after another: pixels to the bit, targets, and the plan that is kept."""
    torch.compiler.reset()
    step, images, labels = Step(aug), torch.rand(5, 3, 12, 20), torch.arange(5)
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    runs = []
    for function in (step, compiled):
        torch.manual_seed(7)
        runs.append([(*function(images, labels), aug.last_plan) for _ in range(3)])
    for (made, loss, plan), (got, got_loss, got_plan) in zip(*runs, strict=True):
        assert torch.equal(got, made)
        assert torch.allclose(got_loss, loss)
        assert plan is not None
        assert torch.equal(apply(images, got_plan), apply(images, plan))
        assert got_plan is not None
        assert got_plan.grid == aug.grid  # as the graph was told


def test_draws_in_one_graph_are_many_and_in_order() -> None:
    """Two calls of one augmentation are no common subexpression, for which graphs with gradients are searched."""
    torch.compiler.reset()
    first, second = CutMix(), Jigsaw(3)

    def chain(images: Tensor) -> Tensor:
        for aug in (first, second, first):
            images = apply(images, aug.sample(images.shape))
        return images

    images = torch.rand(6, 3, 12, 20, requires_grad=True)
    results = []
    for function in (chain, torch.compile(chain, fullgraph=True)):
        torch.manual_seed(3)
        results.append(function(images))
    assert torch.equal(*results)


def test_a_new_p_needs_no_new_graph() -> None:
    torch.compiler.reset()
    aug, images = Jigsaw(3, permutation="cyclic"), torch.rand(4, 3, 12, 12)
    compiled = torch.compile(nn.Sequential(aug, nn.Identity()), fullgraph=True, backend="aot_eager")
    assert not torch.equal(compiled(images), images)
    aug.p = 0.0
    assert torch.equal(compiled(images), images)


def test_gradients_flow_through_a_compiled_draw() -> None:
    torch.compiler.reset()
    aug = RecursiveMosaic(2)
    compiled = torch.compile(lambda x: aug(x) * 3, fullgraph=True, backend="aot_eager")
    images = torch.rand(2, 3, 8, 8, requires_grad=True)
    [gradient] = torch.autograd.grad(compiled(images).sum(), images)
    assert torch.equal(gradient, torch.full_like(images, 3))


def test_masks_compile() -> None:
    torch.compiler.reset()
    masks = torch.randint(0, 1000, (4, 12, 20))
    plan = SnapMix(1.0).sample((4, 3, 12, 20))
    compiled = torch.compile(apply_masks, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(masks, plan), apply_masks(masks, plan))


class Inference(nn.Module):
    def forward(self, images: Tensor, plan: Plan) -> Tensor:
        return 2 * apply(images, plan, **OPTIONS)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("aug", AUGMENTATIONS, ids=lambda aug: aug.name)
def test_a_plan_is_an_argument_of_what_is_exported(aug: Any, strict: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Saved, loaded, and run with another plan than it was exported with."""
    # A message of torch 2.11 has too few arguments, on which pytest's log handler stops.
    monkeypatch.setattr(logging.getLogger("torch._export.serde.serialize"), "disabled", True)
    images = torch.rand(4, 3, 12, 20)
    exported = torch.export.export(Inference(), (images, aug.sample(images.shape)), strict=strict)
    file = io.BytesIO()
    torch.export.save(exported, file)
    file.seek(0)
    program, plan = torch.export.load(file).module(), aug.sample(images.shape)
    assert torch.equal(program(images, plan), Inference()(images, plan))


class Trained(nn.Module):
    def __init__(self, aug: Augmentation) -> None:
        super().__init__()
        self.aug = aug

    def forward(self, images: Tensor, labels: Tensor) -> Any:
        return self.aug(images, labels)


@pytest.mark.parametrize("aug", STEPS, ids=describe)
def test_copies_and_pickles_compile_and_draw_alike(aug: Augmentation) -> None:
    images, labels = torch.rand(4, 3, 12, 20), torch.arange(4)
    steps = [Trained(aug), copy.deepcopy(Trained(aug)), pickle.loads(pickle.dumps(Trained(aug)))]
    steps[2].load_state_dict(steps[0].state_dict())
    results = []
    for number, step in enumerate(steps):
        torch.compiler.reset()
        torch.manual_seed(7)
        function = step if number == 0 else torch.compile(step, fullgraph=True, backend="aot_eager")
        results.append(tree_leaves(function(images, labels)))
    for wanted, *others in zip(*results, strict=True):
        assert all(torch.equal(wanted, other) for other in others)


def test_a_compiled_copy_is_its_own() -> None:
    """It has its own p, and lives on without the first."""
    torch.compiler.reset()
    first, images = Jigsaw(3, permutation="cyclic"), torch.rand(4, 3, 12, 20)
    second = copy.deepcopy(first)
    second.p = 0.0
    assert torch.equal(torch.compile(second, fullgraph=True, backend="aot_eager")(images), images)
    second = copy.deepcopy(first)
    del first
    assert not torch.equal(torch.compile(second, fullgraph=True, backend="aot_eager")(images), images)


@pytest.mark.parametrize(
    "door",
    [V2Transform(CutMix(num_classes=4)), Mixup(cutmix_alpha=1.0, num_classes=4, mode="elem")],
    ids=lambda door: type(door).__name__,
)
def test_doors_compile_as_one_graph(door: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> None:
    torch.compiler.reset()
    images, labels = torch.rand(4, 3, 16, 16), torch.arange(4)
    compiled = torch.compile(lambda x, y: door(x, y), fullgraph=True, backend="aot_eager")  # noqa: PLW0108
    results = []
    for function in (door, compiled):
        torch.manual_seed(3)
        results.append(function(images, labels))
    for want, got in zip(*results, strict=True):
        assert torch.equal(got, want)


def test_shapes_of_a_draw_follow_from_the_operators_arguments() -> None:
    """Compilers keep graphs on disk by their arguments: an augmentation's number means another one tomorrow."""
    with torch._subclasses.FakeTensorMode():
        order = torch.empty((), device="cpu")
        fields = torch.ops.mosaicaug.draw(10**9, "", 3, 16, 12, 4, 2, order)
    assert [list(field.shape) for field in fields] == [[3, 16], [3], [3, 4], [3, 4], [3], [3], [2, 3]]


def test_a_graph_from_inductors_cache_draws_by_the_augmentation_of_today(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two augmentations with one number, as in two programs that share a cache on disk."""
    images = torch.rand(2, 3, 16, 16)
    with fresh_cache():
        for r in (2, 1):
            torch.compiler.reset()
            aug = RecursiveMosaic(r)
            monkeypatch.setattr(aug, "_handle", 10**9)
            augmentations[10**9] = aug
            torch.manual_seed(1)
            made = torch.compile(lambda x, aug=aug: aug(x), fullgraph=True)(images)
            torch.manual_seed(1)
            assert torch.equal(made, aug(images))


def test_gradients_come_in_the_layout_that_the_compiler_was_told() -> None:
    """Where nothing moves, the gradient of `apply` is the one that comes in, here channels_last."""
    torch.compiler.reset()
    weight = torch.rand(2, 3, 8, 8).to(memory_format=torch.channels_last)
    images, plan = torch.rand(2, 3, 8, 8, requires_grad=True), Plan.identity(2, (8, 8))
    compiled = torch.compile(lambda x: (apply(x, plan) * weight).sum(), fullgraph=True)
    [gradient] = torch.autograd.grad(compiled(images), images)
    assert torch.equal(gradient, weight)


def test_an_exported_draw_belongs_to_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Saved with its `Targets`; loaded here it draws, loaded elsewhere it refuses rather than draw by another one."""
    images, labels, file = torch.rand(4, 3, 8, 8), torch.arange(4), io.BytesIO()
    trained = Trained(CutMix())
    torch.export.save(torch.export.export(trained, (images, labels)), file)
    file.seek(0)
    program = torch.export.load(file).module()
    made, targets = program(images, labels)
    assert isinstance(targets, Targets)
    assert not torch.equal(made, images)
    monkeypatch.setattr("mosaicaug.operators.PROCESS", "another process")
    with pytest.raises(RuntimeError, match="draws by an augmentation of another process or one that is gone"):
        program(images, labels)
    trained.eval()
    made, targets = torch.export.export(trained, (images, labels)).module()(images, labels)
    assert torch.equal(made, images)
    assert torch.equal(targets.weight_a, torch.ones(4))


def test_boxes_of_an_exported_program_can_be_saved() -> None:
    class Boxes(nn.Module):
        def forward(self, values: Tensor) -> Any:
            return Placed(values, values[..., 0].long())

    file = io.BytesIO()
    torch.export.save(torch.export.export(Boxes(), (torch.zeros(2, 1, 4),)), file)
    file.seek(0)
    assert isinstance(torch.export.load(file).module()(torch.zeros(2, 1, 4)), Placed)


def test_a_generator_is_not_lost_in_a_compiled_call() -> None:
    torch.compiler.reset()
    aug, images = Jigsaw(3), torch.rand(2, 3, 12, 12)
    compiled = torch.compile(lambda x, generator: aug(x, generator=generator), backend="eager")
    assert torch.equal(compiled(images, seeded(4)), aug(images, generator=seeded(4)))


def test_a_compiled_draw_of_another_grid_than_the_augmentation_says() -> None:
    class Liar(Augmentation):
        def draw(self, batch: int, size: tuple[int, int], generator: torch.Generator | None) -> Plan:
            return Jigsaw(2).draw(batch, size, generator)

    torch.compiler.reset()
    aug = Liar(p=1.0, per="sample")
    with pytest.raises(ValueError, match=r"^Liar: grid says 1 tiles per side, but it drew 2$"):
        torch.compile(aug, fullgraph=True, backend="aot_eager")(torch.rand(2, 3, 8, 8))


def test_targets_are_nodes_of_trees_that_can_be_saved() -> None:
    one = torch.zeros(2)
    _, spec = tree_flatten(Targets(one, one, one, one))
    assert treespec_loads(treespec_dumps(spec)) == spec


def test_operators_follow_no_defaults_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    aug, order = Jigsaw(2), torch.zeros((), dtype=torch.int64, device="cpu")
    plan = Plan.identity(2, (4, 4))
    fields = (plan.tiles, plan.overlay, plan.from_box, plan.to_box, plan.opacity)
    gradient, request = torch.rand(2, 3, 4, 4), (2, 3, 4, 4)
    monkeypatch.setitem(augmentations, 10**9, aug)

    def call() -> list[Tensor]:
        arguments = (gradient, request, torch.float32, *fields, *plan.size, None, None, None)
        return [
            torch.ops.mosaicaug.apply_backward(*arguments),
            *torch.ops.mosaicaug.draw(10**9, "", 2, 4, 4, 2, 0, order),
        ]

    want = [(tensor.dtype, tensor.device) for tensor in call()]
    assert want[-1] == (torch.int64, torch.device("cpu"))
    with torch.device("meta"):
        assert [(tensor.dtype, tensor.device) for tensor in call()] == want
    # What the compiler is told.
    with default_dtype(torch.float64), torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True):
        assert [(tensor.dtype, tensor.device) for tensor in call()] == want
