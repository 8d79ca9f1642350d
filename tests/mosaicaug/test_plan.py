"""The plan as a value: what it means is read off by the oracle, no pixel is touched by the package.

At the end, drawn plans: they skip the checks, own their memory and take few operations.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning_fabric.utilities import move_data_to_device
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mosaicaug import Augmentation, CutMix, Jigsaw, MixUp, OneOf, Plan, RecursiveMosaic, SnapMix
from mosaicaug.plan import overlay_share
from tests.helpers.defaults import default_dtype
from tests.helpers.oracle import copy_pixels, number_pixels


def shuffle_tiles(batch: int, grid: int, size: tuple[int, int], seed: int, *, across: bool = False) -> Plan:
    """A permutation of each image's own tiles, or of the tiles of the whole batch."""
    generator = torch.Generator().manual_seed(seed)
    count = grid * grid
    order = torch.randperm(batch * count, generator=generator)
    if not across:
        order = torch.argsort(torch.rand(batch, count, generator=generator), 1) + torch.arange(batch)[:, None] * count
    plan = Plan.identity(batch, size)
    return dataclasses.replace(plan, tiles=order.view(batch, count).int())


def paste(size: tuple[int, int], partners: list[int], box: tuple[int, int, int, int]) -> Plan:
    """One box for all, cut from each image's partner."""
    boxes = torch.tensor([box] * len(partners), dtype=torch.int32)
    plan = Plan.identity(len(partners), size)
    return dataclasses.replace(plan, overlay=torch.tensor(partners, dtype=torch.int32), from_box=boxes, to_box=boxes)


def run_oracle(images: Tensor, *plans: Plan) -> Tensor:
    for plan in plans:
        images = copy_pixels(images, plan.to_dict())
    return images


def test_identity_has_every_tile_at_home_and_no_overlay() -> None:
    plan = Plan.identity(3, (7, 5))
    assert (len(plan), plan.grid, plan.size) == (3, 1, (7, 5))
    assert plan.tiles.tolist() == [[0], [1], [2]]
    assert (plan.to_box[:, 2:] - plan.to_box[:, :2]).prod(1).tolist() == [0, 0, 0]
    assert plan.drawn_share is None
    images = number_pixels((3, 2, 7, 5))
    assert torch.equal(run_oracle(images, plan), images)


def test_fields_have_the_types_of_the_contract() -> None:
    plan = Plan.identity(2, (8, 8)).refine(4)
    types = {field: getattr(plan, field).dtype for field in ("tiles", "overlay", "from_box", "to_box", "opacity")}
    assert types.pop("opacity") == torch.float32
    assert set(types.values()) == {torch.int32}
    assert plan.grid == 4
    assert plan.tiles.shape == (2, 16)


def test_a_plan_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Plan.identity(1, (4, 4)).size = (8, 8)  # type: ignore[misc]


@pytest.mark.parametrize("factor", [1, 2, 3])
@pytest.mark.parametrize("across", [False, True])
def test_refine_means_the_same_pixels(factor: int, *, across: bool) -> None:
    plan = shuffle_tiles(3, 2, (13, 12), seed=1, across=across)  # tiles of 6x6 px and a margin of one row
    fine = plan.refine(factor)
    assert fine.grid == 2 * factor
    images = number_pixels((3, 1, 13, 12))
    assert torch.equal(run_oracle(images, fine), run_oracle(images, plan))


def test_refine_keeps_the_overlay() -> None:
    plan = paste((8, 8), [1, 0], (1, 2, 5, 7))
    images = number_pixels((2, 1, 8, 8))
    assert torch.equal(run_oracle(images, plan.refine(4)), run_oracle(images, plan))


def test_refine_refuses_tiles_that_cannot_be_cut() -> None:
    plan = shuffle_tiles(1, 2, (10, 12), seed=3)
    assert plan.tiles.tolist() != [[0, 1, 2, 3]]
    with pytest.raises(ValueError, match=r"refine.*5x6.*2"):
        plan.refine(2)
    with pytest.raises(ValueError, match=r"refine.*0"):
        plan.refine(0)


def test_refine_of_tiles_at_home_needs_no_equal_parts() -> None:
    plan = Plan.identity(2, (11, 11)).refine(2).refine(2)
    images = number_pixels((2, 1, 11, 11))
    assert torch.equal(run_oracle(images, plan), images)


@pytest.mark.parametrize(("first", "second"), [(2, 2), (2, 4), (4, 2), (2, 3), (3, 1), (1, 2), (6, 4)])
@pytest.mark.parametrize("across", [False, True])
def test_compose_is_first_then_second(first: int, second: int, *, across: bool) -> None:
    size = (12, 24 if 1 in (first, second) else 25)  # a column of margin, but for G = 1, which has none to keep
    one = shuffle_tiles(2, first, size, seed=5, across=across)
    two = shuffle_tiles(2, second, size, seed=6, across=across)
    images = number_pixels((2, 1, *size))
    both = run_oracle(images, one, two)
    assert torch.equal(run_oracle(images, one.compose(two)), both)
    if first == second == 2:
        assert not torch.equal(run_oracle(images, two, one), both)  # the order can be told apart


def test_a_box_without_height_or_width_is_no_overlay() -> None:
    for box, some in [((2, 3, 2, 6), False), ((2, 3, 5, 3), False), ((2, 3, 5, 6), True)]:
        assert paste((8, 8), [1, 0], box).has_overlay.tolist() == [some, some]


def test_compose_keeps_an_overlay_of_the_second_or_of_the_first() -> None:
    size = (8, 9)
    moved = shuffle_tiles(3, 2, size, seed=7)
    only_first = dataclasses.replace(moved, tiles=torch.cat([moved.tiles[:1], moved.home[1:]]))
    pasted = paste(size, [2, 1, 2], (1, 3, 6, 8))
    still = Plan.identity(3, size)
    images = number_pixels((3, 1, *size))
    assert not torch.equal(only_first.tiles, moved.home)
    for one, two in [(only_first, pasted), (pasted, still), (still, pasted)]:
        assert torch.equal(run_oracle(images, one.compose(two)), run_oracle(images, one, two))


def test_compose_refuses_what_is_not_one_plan() -> None:
    size = (8, 8)
    moved, pasted = shuffle_tiles(2, 2, size, seed=8), paste(size, [1, 0], (0, 0, 4, 4))
    with pytest.raises(ValueError, match=r"compose.*overlay"):
        pasted.compose(pasted)
    with pytest.raises(ValueError, match=r"compose.*overlay"):
        pasted.compose(moved)
    with pytest.raises(ValueError, match=r"compose.*overlay"):
        moved.compose(pasted)  # would be cut from a partner whose tiles were moved
    with pytest.raises(ValueError, match=r"compose.*2.*3"):
        Plan.identity(2, size).compose(Plan.identity(3, size))
    with pytest.raises(ValueError, match=r"compose.*8, 8.*8, 9"):
        Plan.identity(2, size).compose(Plan.identity(2, (8, 9)))


@pytest.mark.parametrize("grid", [1, 2, 3, 5])
@pytest.mark.parametrize("across", [False, True])
def test_invert_puts_every_tile_back(grid: int, *, across: bool) -> None:
    plan = shuffle_tiles(3, grid, (11, 16), seed=9, across=across)
    back = plan.invert()
    images = number_pixels((3, 1, 11, 16))
    assert torch.equal(run_oracle(images, plan, back), images)
    assert torch.equal(run_oracle(images, back, plan), images)
    assert torch.equal(plan.compose(back).tiles, plan.home)


def test_invert_refuses_what_cannot_be_undone() -> None:
    with pytest.raises(ValueError, match=r"invert.*overlay"):
        paste((8, 8), [1, 0], (0, 0, 4, 4)).invert()
    twice = dataclasses.replace(Plan.identity(2, (8, 8)), tiles=torch.tensor([[0], [0]], dtype=torch.int32))
    with pytest.raises(ValueError, match=r"invert.*permutation"):
        twice.invert()


@pytest.mark.parametrize("batch", [0, 1, 3])
@pytest.mark.parametrize("drawn", [False, True])
def test_a_json_log_gives_the_plan_back(batch: int, *, drawn: bool) -> None:
    plan = shuffle_tiles(batch, 2, (9, 7), seed=10)
    box = torch.tensor([[1, 2, 4, 6]], dtype=torch.int32).expand(batch, 4)
    share = torch.rand(batch) if drawn else None
    plan = dataclasses.replace(plan, from_box=box, to_box=box + 1, opacity=torch.rand(batch), drawn_share=share)
    read = Plan.from_dict(json.loads(json.dumps(plan.to_dict())))
    assert (read.size, read.drawn_share is None) == (plan.size, not drawn)
    for name in ("tiles", "overlay", "from_box", "to_box", "opacity") + (("drawn_share",) if drawn else ()):
        one, two = getattr(plan, name), getattr(read, name)
        assert two.dtype == one.dtype
        # An empty list has lost its inner sizes, so an empty batch comes back without its grid.
        assert two.numel() == 0 if batch == 0 else torch.equal(two, one)


def test_one_image_is_checked_as_well() -> None:
    with pytest.raises(ValueError, match=r"^Plan: tiles must lie in 0\.\.0, got 1\.\.1$"):
        Plan.of_tiles(torch.tensor([[1]], dtype=torch.int32), (4, 4))


def test_plans_are_on_the_cpu_whatever_the_default_device() -> None:
    values = Plan.identity(2, (4, 4)).to_dict()
    with torch.device("meta"):
        made = Plan.identity(2, (4, 4)), Plan.from_dict(values)
    assert [plan.to_dict() for plan in made] == [values, values]


def test_plans_are_told_apart_by_identity() -> None:
    plan, other = Plan.identity(2, (4, 4)), Plan.identity(2, (4, 4))
    assert plan == plan
    assert plan != other
    assert {plan, other} == {other, plan}


def test_from_dict_refuses_missing_and_unknown_fields() -> None:
    values = Plan.identity(2, (4, 4)).to_dict()
    with pytest.raises(ValueError, match=r"from_dict: needs the fields \['drawn_share'.* got \['size', 'tiles'"):
        Plan.from_dict({name: value for name, value in values.items() if name != "opacity"})
    with pytest.raises(ValueError, match=r"from_dict.*colour"):
        Plan.from_dict(values | {"colour": 1})


def _int(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.int32)


MALFORMED = {
    "tiles of int64": ({"tiles": torch.arange(2)[:, None]}, r"tiles.*int64"),
    "tiles without a batch": ({"tiles": _int([0, 1])}, r"tiles"),
    "no square grid": ({"tiles": _int([[0, 1, 2], [3, 4, 5]])}, r"tiles.*3"),
    "a tile below 0": ({"tiles": _int([[0], [-1]])}, r"tiles.*-1"),
    "a tile past the batch": ({"tiles": _int([[0], [2]])}, r"tiles.*2"),
    "a grid finer than the image": (
        {"tiles": torch.arange(50, dtype=torch.int32).view(2, 25)},
        r"a grid of 5 .*\(4, 6\)",
    ),
    "a grid finer than one pixel": (
        {"size": (1, 1), "tiles": torch.arange(8, dtype=torch.int32).view(2, 4)},
        r"a grid of 2 needs images of at least 2 px",
    ),
    "no tiles": ({"tiles": torch.empty(2, 0, dtype=torch.int32)}, r"tiles.*0"),
    "overlay of another batch": ({"overlay": _int([0, 1, 1])}, r"overlay.*3"),
    "overlay past the batch": ({"overlay": _int([0, 2])}, r"overlay.*2"),
    "overlay below 0": ({"overlay": _int([-1, 0])}, r"overlay.*-1"),
    "boxes of three corners": ({"to_box": _int([[0, 0, 1], [0, 0, 1]])}, r"to_box.*2, 3"),
    "a box past the height": (
        {"to_box": _int([[0, 0, 5, 4]] * 2), "from_box": _int([[0, 0, 4, 4]] * 2)},
        r"boxes must be",
    ),
    "a box past the width": ({"from_box": _int([[0, 0, 4, 7]] * 2)}, r"boxes must be"),
    "a box turned round": ({"to_box": _int([[3, 0, 1, 4]] * 2)}, r"boxes must be"),
    "a box left of the image": ({"to_box": _int([[0, -1, 1, 4]] * 2)}, r"boxes must be"),
    "nothing to fill a box with": ({"to_box": _int([[0, 0, 0, 0], [0, 0, 2, 2]])}, r"image 1 .*from_box"),
    "opacity above 1": ({"opacity": torch.tensor([1.0, 1.5])}, r"opacity"),
    "opacity NaN": ({"opacity": torch.tensor([1.0, float("nan")])}, r"opacity"),
    "opacity of float64": ({"opacity": torch.ones(2, dtype=torch.float64)}, r"opacity.*float64"),
    "drawn_share of another batch": ({"drawn_share": torch.ones(3)}, r"drawn_share.*3"),
    "drawn_share above 1": ({"drawn_share": torch.tensor([0.5, 7.0])}, r"drawn_share"),
    "a field on another device": ({"opacity": torch.ones(2, device="meta")}, r"opacity.*meta"),
}


@pytest.mark.parametrize(("change", "message"), MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_fields_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"^Plan: {message}"):
        dataclasses.replace(Plan.identity(2, (4, 6)), **change)


DRAWN: list[Augmentation] = [
    aug
    for per in ("sample", "batch")
    for p in (1.0, 0.5)
    for aug in (
        RecursiveMosaic(2, p=p, per=per),
        Jigsaw(3, p=p, per=per),
        CutMix(0.3, p=p, per=per, true_area=False),
        MixUp(0.3, p=p, per=per),
        SnapMix(0.3, p=p, per=per),
    )
]


def draw(aug: Augmentation, batch: int, size: tuple[int, int] = (5, 9)) -> Plan:
    return aug.sample((batch, 3, *size), generator=torch.Generator().manual_seed(11))


def list_tensors(plan: Plan) -> list[Tensor]:
    return [value for value in vars(plan).values() if isinstance(value, Tensor)]


@pytest.mark.parametrize("aug", [*DRAWN, OneOf([Jigsaw(2), SnapMix(0.3)])], ids=str)
@pytest.mark.parametrize("batch", [0, 1, 2, 50])
def test_drawn_plans_would_pass_the_checks_that_they_skip(aug: Augmentation, batch: int) -> None:
    plan = draw(aug, batch)
    checked = dataclasses.replace(plan)
    assert vars(checked) == vars(plan)
    assert len(plan) == batch
    assert all(tensor.is_contiguous() for tensor in list_tensors(plan))


@pytest.mark.parametrize("aug", DRAWN, ids=str)
@pytest.mark.parametrize("batch", [1, 3])
def test_writing_to_a_drawn_plan_leaves_later_ones_alone(aug: Augmentation, batch: int) -> None:
    plan = draw(aug, batch)
    before = plan.to_dict()
    for tensor in list_tensors(plan):
        tensor.fill_(-7)
    assert draw(aug, batch).to_dict() == before


@pytest.mark.parametrize("aug", DRAWN, ids=str)
def test_plans_are_drawn_on_the_cpu_and_in_one_precision_whatever_the_defaults(aug: Augmentation) -> None:
    size = (8, 6)  # new, so that what is kept per size is made under these defaults
    with default_dtype(torch.float64), torch.device("meta"):
        plan = draw(aug, 3, size)
    assert dataclasses.replace(plan).to_dict() == draw(aug, 3, size).to_dict()


class NameOperations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Names of the operations that torch dispatches, views too: their number is a small draw's cost on any machine."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        floats = any(isinstance(value, Tensor) and value.is_floating_point() for value in args)
        self.names.append(("float " if floats else "") + func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def name_operations(function: Callable[[], object]) -> list[str]:
    with NameOperations() as operations:
        function()
    names: list[str] = operations.names
    return names


def count_operations(function: Callable[[], object]) -> int:
    return len(name_operations(function))


@pytest.mark.parametrize(
    ("aug", "most"),
    [
        (RecursiveMosaic(1), 20),
        (RecursiveMosaic(5, p=0.5, per="batch", permutation="cyclic"), 24),
        (Jigsaw(8), 16),
        (Jigsaw(8, p=0.5, per="batch", permutation="cyclic"), 23),
        (CutMix(), 29),
        (CutMix(p=0.5, per="batch", true_area=False), 40),
        (MixUp(), 21),
        (MixUp(p=0.5, per="batch"), 26),
        (SnapMix(), 35),
        (SnapMix(p=0.5, per="batch"), 43),
    ],
    ids=str,
)
@pytest.mark.parametrize("batch", [1, 100])
def test_drawing_and_asking_take_few_operations(aug: Augmentation, most: int, batch: int) -> None:
    plan = aug.sample((batch, 3, 64, 64))  # what is kept between draws is made now
    assert count_operations(lambda: aug.sample((batch, 3, 64, 64))) <= most
    assert count_operations(lambda: plan.moves_tiles) <= 3
    assert count_operations(lambda: plan.has_overlay) <= 4


# What torch leaves to MKL, which wakes all threads for the smallest tensor once somebody has called
# `torch.set_num_threads`: beside other work each then waits for a core, 8 ms where the drawing takes 0.1.
MKL = {"acos", "asin", "atan", "cos", "cosh", "erf", "exp", "expm1", "lgamma", "log", "log10", "log1p", "log2", "sin"}
MKL |= {"sinh", "sqrt", "tan", "tanh", "trunc", "addmm", "mm", "bmm", "baddbmm", "addmv", "mv", "dot"}


@pytest.mark.parametrize("aug", [RecursiveMosaic(3), Jigsaw(8), CutMix(), MixUp(), SnapMix()], ids=str)
def test_drawing_wakes_no_threads(aug: Augmentation) -> None:
    names = name_operations(lambda: aug.sample((128, 3, 64, 64)))
    assert "rand" in names
    assert not {f"float {name}" for name in MKL} & {name.removesuffix("_") for name in names}


def test_a_plan_stays_where_it_is_in_a_batch_that_lightning_moves() -> None:
    plan, labels = Plan.identity(2, (4, 4)), torch.zeros(2)
    moved = move_data_to_device({"plan": [plan], "labels": labels}, torch.device("meta"))
    assert moved["plan"][0] is plan
    assert moved["labels"].is_meta
    assert plan.to("cuda", non_blocking=True) is plan


def test_fields_and_sizes_of_another_kind_are_refused_in_one_line() -> None:
    good: dict[str, Any] = Plan.identity(2, (4, 4)).to_dict()
    cases: list[tuple[Any, type[Exception], str]] = [
        (good | {"tiles": 3}, ValueError, "Plan.from_dict: a field is malformed: "),
        (good | {"tiles": [[0], [1, 2]]}, ValueError, "Plan.from_dict: a field is malformed: "),
        (good | {"tiles": [["a"], ["b"]]}, ValueError, "Plan.from_dict: a field is malformed: "),
        (good | {"overlay": [2**40, 0]}, ValueError, "Plan.from_dict: a field is malformed: "),
        (good | {"size": 4}, ValueError, "Plan.from_dict: a field is malformed: "),
        (good | {"size": [4.5, 4]}, TypeError, r"Plan: size must be two integers, .* got \(4.5, 4\)"),
        ([1, 2], ValueError, "Plan.from_dict: needs the fields"),
    ]
    for values, error, message in cases:
        with pytest.raises(error, match=rf"^{message}"):
            Plan.from_dict(values)
    fields = {name: getattr(Plan.identity(2, (4, 4)), name) for name in good}
    for name in ("tiles", "overlay", "opacity"):
        with pytest.raises(TypeError, match=rf"^Plan: {name} must be a tensor, got ndarray$"):
            Plan(**fields | {name: fields[name].numpy()})


@pytest.mark.parametrize("tiles", [[[0.5], [1]], [[0], [2**40]], [[float("nan")], [0]]])
def test_numbers_that_are_no_integers_of_32_bits_are_not_cut_off(tiles: list[list[float]]) -> None:
    values = Plan.identity(2, (4, 4)).to_dict() | {"tiles": tiles}
    with pytest.raises(ValueError, match="a field is malformed: tiles must hold integers"):
        Plan.from_dict(values)
    assert Plan.from_dict(values | {"tiles": [[0.0], [1.0]]}).tiles.tolist() == [[0], [1]]


def test_the_share_of_a_large_overlay_does_not_overflow() -> None:
    box = torch.tensor([[0, 0, 50_000, 60_000]], dtype=torch.int32)
    plan = dataclasses.replace(Plan.identity(1, (60_000, 60_000)), from_box=box, to_box=box)
    assert overlay_share(plan).item() == pytest.approx(5 / 6)
