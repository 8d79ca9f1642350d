"""The laws of drawing, on plans alone. Seeds are fixed, so each bound either holds for good or shows a wrong law.

Every law is tested a second time on samplers with a wrong law planted, close to the right one: the same test has to
fail on these.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from mosaicaug import Augmentation, Compose, CutMix, Jigsaw, MixUp, OneOf, Plan, RecursiveMosaic, SnapMix, sampling
from mosaicaug.sampling import Chain, batch_generator
from mosaicaug.zorder import nested_shuffles
from tests.helpers.oracle import (
    beta_cdf,
    chi_square_p,
    compare_samples,
    draw_published_boxes,
    ks_p,
    seeded,
)

LEAST_P = 1e-6  # a right law fails a test with this chance
WIDE = (4096, 2048)  # so large that a box is practically never empty
Permutation = Literal["uniform", "cyclic"]


def read_own_tiles(plan: Plan) -> np.ndarray[Any, Any]:
    """Source tile within the own image, ``[B, G*G]``."""
    count = plan.tiles.shape[1]
    own = plan.tiles.numpy() - np.arange(len(plan))[:, None] * count
    assert ((own >= 0) & (own < count)).all()
    return own


def read_levels(plan: Plan) -> list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """Shuffle ``[B]`` (index into 24, lexicographic) and next patch ``[B]`` of every level of nested mosaics.

    Patch -1 is one that nothing shows, because all deeper shuffles came out as the identity. Fails unless each level
    moves whole quadrants and rearranges at most one of them further.
    """
    side = plan.grid
    tiles = read_own_tiles(plan).reshape(-1, side, side)
    levels = []
    while side > 1:
        half, batch = side // 2, len(tiles)
        cells = tiles.reshape(batch, 2, half, 2, half).swapaxes(2, 3).reshape(batch, 4, half, half)
        row, column = cells // side, cells % side
        quadrant = row // half * 2 + column // half
        shuffle = quadrant[:, :, 0, 0]
        assert (quadrant == shuffle[:, :, None, None]).all()
        assert (np.sort(shuffle, 1) == np.arange(4)).all()
        inner = row % half * half + column % half
        away = (inner != np.arange(half * half).reshape(half, half)).any((2, 3))
        assert away.sum(1).max(initial=0) <= 1
        patch = np.where(away.any(1), away.argmax(1), -1)
        levels.append((_rank_permutations(shuffle), patch))
        tiles, side = inner[np.arange(batch), np.maximum(patch, 0)], half
    return levels


def _rank_permutations(shuffle: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    smaller = (shuffle[:, :, None] > shuffle[:, None, :]) & (np.arange(4)[:, None] < np.arange(4))
    return np.asarray((smaller.sum(2) * [6, 2, 1, 0]).sum(1))


def read_boxes(plan: Plan) -> np.ndarray[Any, Any]:
    return np.concatenate([plan.to_box.numpy(), plan.from_box.numpy()], 1).astype(np.float64)


def expect_uncorrelated(one: np.ndarray[Any, Any], two: np.ndarray[Any, Any]) -> None:
    """Within five standard errors of 0."""
    assert abs(np.corrcoef(one, two)[0, 1]) < 5 / math.sqrt(len(one))


def test_mosaic_shuffles_uniformly_on_every_level() -> None:
    plan = RecursiveMosaic(r=3).sample((24000, 3, 64, 64), generator=seeded(1))
    levels = read_levels(plan)
    assert len(levels) == 3
    for shuffle, _ in levels:
        assert chi_square_p(np.bincount(shuffle, minlength=24)) > LEAST_P
    for _, patch in levels[:2]:
        assert chi_square_p(np.bincount(patch[patch >= 0], minlength=4)) > LEAST_P
    assert (levels[0][1] < 0).sum() == ((levels[1][0] == 0) & (levels[2][0] == 0)).sum()


def test_mosaic_levels_are_independent() -> None:
    levels = read_levels(RecursiveMosaic(r=2, permutation="cyclic").sample((20000, 3, 8, 8), generator=seeded(2)))
    (first, patch), (second, _) = levels
    kinds = np.unique(first)
    assert len(kinds) == 6
    code = (np.searchsorted(kinds, first) * 4 + patch) * 6 + np.searchsorted(kinds, second)
    assert chi_square_p(np.bincount(code, minlength=144)) > LEAST_P


@pytest.mark.parametrize(("r", "arrangements"), [(1, 6), (2, 144), (3, 3456)])
def test_cyclic_mosaic_has_the_published_arrangements(r: int, arrangements: int) -> None:
    # 60,000 draws miss one of 3456 arrangements with a chance of 1e-4.
    plan = RecursiveMosaic(r=r, permutation="cyclic").sample((60000, 3, 8, 8), generator=seeded(3))
    _, counts = np.unique(read_own_tiles(plan), axis=0, return_counts=True)
    assert len(counts) == arrangements
    assert chi_square_p(counts) > LEAST_P
    assert not (plan.tiles == plan.home).any()


@pytest.mark.parametrize("permutation", ["uniform", "cyclic"])
@pytest.mark.parametrize("r", [1, 2, 3, 4])
def test_mosaic_is_windows_within_windows(r: int, permutation: Permutation) -> None:
    shuffles = list(itertools.permutations(range(4)))
    if permutation == "cyclic":
        shuffles = [
            shuffle for shuffle in shuffles if shuffle[0] and shuffle[shuffle[0]] and shuffle[shuffle[shuffle[0]]]
        ]
    uniforms = torch.rand(30, 1 + 2 * r, generator=seeded(21), dtype=torch.float64).numpy()
    plan = RecursiveMosaic(r, permutation=permutation).sample((30, 3, 64, 64), generator=seeded(21))
    for own, row in zip(read_own_tiles(plan), uniforms, strict=True):
        window = tiles = np.arange(4**r).reshape(2**r, 2**r)
        for shuffle, patch in row[1:].reshape(r, 2):
            half = len(window) // 2
            quadrants = [window[y : y + half, x : x + half] for y in (0, half) for x in (0, half)]
            before = [quadrant.copy() for quadrant in quadrants]
            for quadrant, source in zip(quadrants, shuffles[int(shuffle * len(shuffles))], strict=True):
                quadrant[:] = before[source]
            window = quadrants[int(patch * 4)]
        assert (own == tiles.flatten()).all()


def test_phases_are_drawn_one_by_one_or_stop_earlier() -> None:
    """Shuffles of the first level of two phases: every pair of the six as often as any other, or the same twice."""
    aug, code = RecursiveMosaic(2, permutation="cyclic"), {}
    for chain in get_args(Chain):
        plans = aug.sample_phases((9000, 3, 8, 8), chain=chain, generator=seeded(24))
        assert [plan.grid for plan in plans] == [4, 2, 1]
        first, second = (np.unique(read_levels(plan)[0][0], return_inverse=True)[1] for plan in plans[:2])
        code[chain] = first * 6 + second
    assert chi_square_p(np.bincount(code["independent"], minlength=36)) > LEAST_P
    assert chi_square_p(np.bincount(code["shared"], minlength=36)[::7]) > LEAST_P
    assert (code["shared"] % 7 == 0).all()


@pytest.mark.parametrize("per", ["sample", "batch"])
def test_a_shared_chain_begins_with_what_one_call_draws(per: Literal["sample", "batch"]) -> None:
    aug, shape = RecursiveMosaic(2, per=per), (5, 1, 8, 8)
    chain = aug.sample_phases(shape, chain="shared", generator=seeded(3))
    assert [plan.grid for plan in chain] == [4, 2, 1]
    assert torch.equal(chain[0].tiles, aug.sample(shape, generator=seeded(3)).tiles)


def test_mosaic_of_no_recursion_moves_nothing() -> None:
    plan = RecursiveMosaic(r=0).sample((3, 3, 8, 8))
    assert torch.equal(plan.tiles, plan.home)


@pytest.mark.parametrize("per", ["sample", "batch"])
def test_jigsaw_is_the_order_of_its_uniforms(per: Literal["sample", "batch"]) -> None:
    uniforms = torch.rand(30 if per == "sample" else 1, 1 + 64, generator=seeded(22), dtype=torch.float64)
    own = read_own_tiles(Jigsaw(8, per=per).sample((30, 3, 64, 64), generator=seeded(22)))
    assert (own == np.argsort(uniforms[:, 1:].numpy(), axis=1)).all()


@pytest.mark.parametrize(("permutation", "arrangements"), [("uniform", 24), ("cyclic", 6)])
def test_jigsaw_of_four_tiles_is_fair(permutation: Permutation, arrangements: int) -> None:
    plan = Jigsaw(2, permutation=permutation).sample((12000, 3, 8, 8), generator=seeded(4))
    _, counts = np.unique(read_own_tiles(plan), axis=0, return_counts=True)
    assert len(counts) == arrangements
    assert chi_square_p(counts) > LEAST_P


@pytest.mark.parametrize("permutation", ["uniform", "cyclic"])
def test_jigsaw_sends_every_tile_anywhere(permutation: Permutation) -> None:
    own = read_own_tiles(Jigsaw(3, permutation=permutation).sample((9000, 3, 9, 9), generator=seeded(5)))
    assert (np.sort(own, 1) == np.arange(9)).all()
    for tile in range(9):
        counts = np.bincount(own[:, tile], minlength=9)
        if permutation == "cyclic":
            assert counts[tile] == 0
            counts = np.delete(counts, tile)
        assert chi_square_p(counts) > LEAST_P / 9


@pytest.mark.parametrize("n", [2, 3, 4, 7])
def test_cyclic_jigsaw_is_one_cycle(n: int) -> None:
    own = torch.from_numpy(read_own_tiles(Jigsaw(n, permutation="cyclic").sample((50, 3, 28, 28)))).long()
    place = torch.zeros(50, 1, dtype=torch.int64)
    for step in range(1, n * n + 1):
        place = own.gather(1, place)
        assert bool((place == 0).all()) == (step == n * n)
        assert step == n * n or not (place == 0).any()


@pytest.mark.parametrize("name", ["MixUp", "CutMix"])
@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0, 5.0])
def test_weights_are_drawn_from_beta(alpha: float, name: str) -> None:
    if name == "MixUp":
        drawn = MixUp(alpha).sample((20000, 3, 8, 8), generator=seeded(6)).opacity
    else:
        share = CutMix(alpha, true_area=False).sample((20000, 3, 8, 8), generator=seeded(6)).drawn_share
        assert share is not None
        drawn = share
    weight = drawn.double().numpy()
    at = np.linspace(0, 1, 2001)[1:-1]  # inside, where float32 does not heap many draws on one number
    distance = np.abs(np.searchsorted(np.sort(weight), at, side="right") / len(weight) - beta_cdf(at, alpha))
    assert ks_p(float(distance.max()), len(weight)) > LEAST_P
    centred = weight - 0.5
    variance, fourth = 1 / (4 * (2 * alpha + 1)), 3 / (16 * (2 * alpha + 1) * (2 * alpha + 3))
    # Four and a half standard errors of each moment.
    assert abs(centred.mean()) < 4.5 * math.sqrt(variance / len(weight))
    assert abs((centred**2).mean() - variance) < 4.5 * math.sqrt((fourth - variance**2) / len(weight))
    expect_uncorrelated(weight[1:], weight[:-1])


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0, 5.0])
@pytest.mark.parametrize("name", ["cutmix", "snapmix to", "snapmix from"])
def test_boxes_follow_the_published_law(name: str, alpha: float) -> None:
    size, count = (96, 40), 20000
    aug = CutMix(alpha) if name == "cutmix" else SnapMix(alpha)
    plan = aug.sample((count, 3, *size), generator=seeded(7))
    drawn = (plan.from_box if name == "snapmix from" else plan.to_box).double().numpy()
    published = draw_published_boxes(count, alpha, size, seed=8)

    def pick(boxes: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.asarray(boxes[((boxes[:, 2:] - boxes[:, :2]) > 0).all(1)])  # an empty box has no place

    drawn, published = pick(drawn), pick(published)
    if name == "cutmix":  # SnapMix also drops a box whose counterpart is empty
        assert abs(len(drawn) - len(published)) < 5 * math.sqrt(count / 2)
    for column in range(4):
        assert compare_samples(drawn[:, column], published[:, column]) > LEAST_P
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (drawn, published)]
    assert compare_samples(*areas) > LEAST_P


@pytest.mark.parametrize("alpha", [1e-3, 0.01, 1.0, 1e6])
def test_areas_stay_between_nothing_and_the_whole_image(alpha: float) -> None:
    cut = sampling.draw_cutmix(100000, alpha, per="sample", generator=seeded(31))
    assert cut.share.min() >= 0
    assert cut.share.max() <= 1
    assert torch.allclose(cut.reach, cut.share.sqrt(), rtol=1e-15, atol=0)
    if alpha < 0.1:  # nearly all of them are nothing or the whole
        assert ((cut.share < 1e-9) | (cut.share > 1 - 1e-9)).double().mean() > 0.8


def make_box(uniforms: list[float], alpha: float, size: tuple[int, int]) -> list[int]:
    radius, angle, y, x = uniforms
    cosine = math.cos(2 * math.pi * angle)
    weight = 0.5 + math.copysign(0.5, cosine) / math.sqrt(1 + 1 / ((radius ** (-1 / alpha) - 1) * cosine**2))
    centre = [int(place * extent) for place, extent in zip((y, x), size, strict=True)]
    half = [int(extent * math.sqrt(1 - weight)) // 2 for extent in size]
    low = [max(at - reach, 0) for at, reach in zip(centre, half, strict=True)]
    return low + [min(at + reach, extent) for at, reach, extent in zip(centre, half, size, strict=True)]


def test_boxes_are_read_off_their_uniforms() -> None:
    size = (301, 200)
    uniforms = torch.rand(50, 9, generator=seeded(23), dtype=torch.float64).tolist()
    snap = SnapMix(0.7).sample((50, 3, *size), generator=seeded(23))
    drawn = (snap.to_box[:, 2:] > snap.to_box[:, :2]).all(1)
    assert drawn.sum() > 30
    for boxes, first in [(snap.to_box, 1), (snap.from_box, 5)]:
        wanted = [make_box(row[first : first + 4], 0.7, size) for row in uniforms]
        assert torch.equal(boxes[drawn], torch.tensor(wanted, dtype=torch.int32)[drawn])
    uniforms = torch.rand(50, 5, generator=seeded(23), dtype=torch.float64).tolist()
    cut = CutMix(0.7).sample((50, 3, *size), generator=seeded(23))
    assert cut.to_box.tolist() == [make_box(row[1:], 0.7, size) for row in uniforms]


def test_box_centres_are_uniform_over_the_pixels_of_each_axis() -> None:
    # So large an alpha fixes the cut at int(64 * sqrt(1/2)) = 45 rows and int(48 * sqrt(1/2)) = 33 columns.
    box = CutMix(1e6).sample((12800, 3, 64, 48), generator=seeded(9)).to_box.long()
    for axis, extent, half in [(0, 64, 22), (1, 48, 16)]:
        low, high = box[:, axis], box[:, axis + 2]
        centre = torch.where(high < extent, high - half, low + half)
        assert torch.equal(low, (centre - half).clamp(min=0))
        assert torch.equal(high, (centre + half).clamp(max=extent))
        assert chi_square_p(torch.bincount(centre, minlength=extent).numpy()) > LEAST_P
        assert centre.max() < extent


def test_boxes_of_one_batch_are_independent() -> None:
    boxes = read_boxes(SnapMix(1.0).sample((20000, 3, *WIDE), generator=seeded(10)))
    assert len(np.unique(boxes, axis=0)) > 19900
    middle = (boxes[:, [0, 1, 4, 5]] + boxes[:, [2, 3, 6, 7]]) / 2  # of to_box and from_box, y and x
    areas = (boxes[:, [2, 6]] - boxes[:, [0, 4]]) * (boxes[:, [3, 7]] - boxes[:, [1, 5]])
    expect_uncorrelated(areas[:, 0], areas[:, 1])
    for one in range(4):
        expect_uncorrelated(middle[1:, one], middle[:-1, one])
        for two in range(one):
            expect_uncorrelated(middle[:, one], middle[:, two])


@pytest.mark.parametrize("aug", [CutMix(), MixUp(), SnapMix(), CutMix(per="batch")])
def test_partners_are_one_permutation_of_the_batch(aug: CutMix | MixUp | SnapMix) -> None:
    """All 24 orders of four images come about equally often; 400 draws miss one with a chance of 1e-6."""
    generator = seeded(11)
    partners = torch.stack([aug.sample((4, 3, 16, 16), generator=generator).overlay for _ in range(400)]).numpy()
    assert (np.sort(partners, 1) == np.arange(4)).all()
    assert chi_square_p(np.bincount(_rank_permutations(partners), minlength=24)) > LEAST_P


def test_boxes_of_one_size_but_for_snapmix() -> None:
    cut, snap = (aug.sample((200, 3, 64, 64), generator=seeded(12)) for aug in (CutMix(), SnapMix()))
    assert torch.equal(cut.from_box, cut.to_box)
    assert not torch.equal(snap.from_box, snap.to_box)
    assert (cut.opacity == 1).all()
    assert (snap.opacity == 1).all()
    whole = MixUp().sample((3, 3, 12, 20)).to_box
    assert whole.tolist() == [[0, 0, 12, 20]] * 3


Touched = Callable[[Plan], Tensor]


def moved_images(plan: Plan) -> Tensor:
    return (plan.tiles != plan.home).any(1)


def covered_images(plan: Plan) -> Tensor:
    return (plan.to_box[:, 2:] > plan.to_box[:, :2]).all(1)


def expect_rate(touched: Tensor, rate: float) -> None:
    """Within five standard deviations of a binomial count; p * p is 30 and more away."""
    count, spread = touched.numel(), math.sqrt(touched.numel() * rate * (1 - rate))
    assert abs(int(touched.sum()) - count * rate) < 5 * spread


@pytest.mark.parametrize(
    ("make", "find"),
    [
        (lambda p: RecursiveMosaic(2, p=p, permutation="cyclic"), moved_images),
        (lambda p: Jigsaw(2, p=p, permutation="cyclic"), moved_images),
        (lambda p: CutMix(p=p), covered_images),
        (lambda p: MixUp(p=p), covered_images),
        (lambda p: SnapMix(p=p), covered_images),
    ],
    ids=["RecursiveMosaic", "Jigsaw", "CutMix", "MixUp", "SnapMix"],
)
def test_p_is_hit_once(make: Callable[[float], Any], find: Touched) -> None:
    for p in (0.3, 0.5, 0.9):
        expect_rate(find(make(p).sample((10000, 3, *WIDE), generator=seeded(13))), p)
    assert find(make(1.0).sample((1000, 3, *WIDE))).all()
    assert not find(make(0.0).sample((1000, 3, *WIDE))).any()


def test_p_per_batch_is_hit_once_for_all() -> None:
    aug, generator = Jigsaw(2, p=0.3, per="batch", permutation="cyclic"), seeded(14)
    moved = torch.stack([moved_images(aug.sample((3, 3, 8, 8), generator=generator)) for _ in range(1000)])
    assert torch.equal(moved.all(1), moved.any(1))
    expect_rate(moved.all(1), 0.3)


def test_p_is_hit_once_inside_compose() -> None:
    aug = Compose([Jigsaw(2, p=0.5, permutation="cyclic"), CutMix(p=0.3)])
    plan = aug.sample((10000, 3, *WIDE), generator=seeded(15))
    moved, covered = moved_images(plan), covered_images(plan)
    for touched, rate in [(moved, 0.5), (covered, 0.3), (moved & covered, 0.15)]:
        expect_rate(touched, rate)


def test_p_is_hit_once_inside_one_of_and_weights_are_kept() -> None:
    aug = OneOf([Jigsaw(2, p=0.5, permutation="cyclic"), MixUp(p=0.8), CutMix()], weights=[2, 1, 1])
    plan = aug.sample((10000, 3, *WIDE), generator=seeded(16))
    moved, covered = moved_images(plan), covered_images(plan)
    blended = covered & (plan.opacity < 1)
    for touched, rate in [(moved, 0.25), (blended, 0.2), (covered & ~blended, 0.25)]:
        expect_rate(touched, rate)
    assert not (moved & covered).any()


def test_one_of_per_batch_chooses_once_for_all_by_the_weights() -> None:
    aug, generator, chosen = OneOf([Jigsaw(1), CutMix(), MixUp()], [1, 0, 3], per="batch"), seeded(25), []
    for _ in range(600):
        aug.sample((3, 3, 8, 8), generator=generator)
        assert aug.last_choice is not None
        assert (aug.last_choice == aug.last_choice[0]).all()
        chosen.append(aug.last_choice[0])
    choice = torch.stack(chosen)
    assert not (choice == 1).any()
    expect_rate(choice == 2, 0.75)


@pytest.mark.parametrize(
    "aug", [RecursiveMosaic(2, per="batch"), Jigsaw(3, per="batch"), CutMix(per="batch"), SnapMix(per="batch")]
)
def test_per_batch_gives_equal_rows(aug: Augmentation) -> None:
    plan = aug.sample((6, 3, 64, 64), generator=seeded(20))
    for rows in (read_own_tiles(plan), plan.to_box.numpy(), plan.from_box.numpy(), plan.opacity.numpy()):
        assert (rows == rows[0]).all()


def test_seeds_of_batches_stay_what_they_were() -> None:
    assert batch_generator(5).initial_seed() == 5
    assert batch_generator(1, 2, 3).initial_seed() == 1 + 2 * 0x9E3779B1 + 3 * 0x85EBCA77
    assert batch_generator(2**64 - 1, 1).initial_seed() == 0x9E3779B1 - 1  # seeds have 64 bits


def test_weights_of_any_size_are_weighed() -> None:
    for weights in ([1e39, 1e39], [1e-50, 1e-50]):  # beyond float32
        chosen = sampling.one_of(100, weights, per="sample", generator=seeded(1))
        assert 30 < int(chosen.sum()) < 70


@pytest.mark.parametrize("size", [(5, 9), (9, 5)])  # so that many boxes have columns and no rows, or rows alone
def test_a_box_without_pixels_is_cut_from_nothing(size: tuple[int, int]) -> None:
    plan = SnapMix(0.3).sample((300, 1, *size), generator=seeded(2))
    extent = [(box[:, 2:] - box[:, :2]).tolist() for box in (plan.from_box, plan.to_box)]
    assert all((min(one) > 0) == (min(other) > 0) == (max(other) > 0) for one, other in zip(*extent, strict=True))
    assert 0 < int(plan.has_overlay.sum()) < 300


def test_seeds_of_batches_epochs_and_neighbouring_runs_do_not_meet() -> None:
    """Torch's generator reads 32 bits of a seed."""
    keys = itertools.product(range(8), [*range(300), 10**6], range(20))
    firsts = [int(batch_generator(*key).initial_seed()) % 2**32 for key in keys]
    assert len(set(firsts)) == len(firsts)


# Wrong laws: what each takes the place of, and the test that has to fail on it. The tests see an alpha that is 10 % too
# large and a quadrant entered 5 % less often (half of that they do not tell from chance), and a shuffle 1 % too rare.

beta_variates, argsort = sampling._beta_variates, sampling._argsort
mosaic_phases, tile_plan = sampling.mosaic_phases, sampling._tile_plan
clipped_box, draw_uniforms, apply_chance = sampling._clipped_box, sampling._uniforms, sampling._apply_chance
Twin = Callable[..., Any]


def shift_box_inside(share: Tensor, centre: Tensor, size: tuple[int, int]) -> Tensor:
    """Whole boxes that are shifted into the image, where the published ones are clipped."""
    limit = torch.tensor(size, dtype=torch.float64)
    extent = (limit * share.sqrt()[..., None]).int() // 2 * 2
    low = torch.minimum(((centre * limit).int() - extent // 2).clamp(min=0), limit.int() - extent)
    return torch.cat([low, low + extent], -1)


def swap_naively(uniforms: Tensor) -> Tensor:
    """Every place swapped with any other: the shuffle that is not uniform."""
    order = torch.arange(uniforms.shape[1]).repeat(len(uniforms), 1)
    row = torch.arange(len(uniforms))
    for place, other in enumerate((uniforms * uniforms.shape[1]).long().unbind(1)):
        kept = order[:, place].clone()
        order[:, place] = order[row, other]
        order[row, other] = kept
    return order


def keep_last(uniforms: Tensor) -> Tensor:
    """All but the last place shuffled: a shuffle that is off by one."""
    last = torch.full((len(uniforms), 1), uniforms.shape[1] - 1)
    return torch.cat([argsort(uniforms[:, :-1].contiguous()), last], 1)


def one_cycle(uniforms: Tensor) -> Tensor:
    """One cycle through all places, none of which stays."""
    order = argsort(uniforms)
    return torch.empty_like(order).scatter_(1, order, order.roll(-1, 1))


def derange(batch: int, generator: torch.Generator | None) -> Tensor:
    """Partners that are never the image itself."""
    while True:
        order = torch.randperm(batch, generator=generator, dtype=torch.int32)
        if not (order == torch.arange(batch)).any():
            return order


def rotate(batch: int, generator: torch.Generator | None) -> Tensor:
    """The batch moved along by a random number of places: each partner alone is uniform."""
    return torch.arange(batch, dtype=torch.int32).roll(int(torch.randint(batch, (1,), generator=generator)))


def change(columns: slice, work: Callable[[Tensor], Tensor]) -> Twin:
    """Nested shuffles of changed uniforms."""

    def shuffle(uniforms: Tensor, permutation: Permutation) -> Tensor:
        uniforms = uniforms.clone()
        uniforms[:, columns] = work(uniforms[:, columns])
        return nested_shuffles(uniforms, permutation)

    return shuffle


def choose_by(bounds: Callable[[Tensor], Tensor]) -> Twin:
    """Choice of a member by other bounds."""

    def one_of(batch: int, weights: Sequence[float], *, generator: torch.Generator | None, **_: Any) -> Tensor:
        limits = bounds(torch.tensor(weights, dtype=torch.float64))
        uniforms = torch.rand(batch, generator=generator, dtype=torch.float64)
        return torch.searchsorted(limits / limits[-1], uniforms).clamp(max=len(weights) - 1)

    return one_of


def box_law() -> None:
    test_boxes_follow_the_published_law("cutmix", 1.0)


def mixup_law() -> None:
    test_weights_are_drawn_from_beta(0.2, "MixUp")


def partner_law() -> None:
    test_partners_are_one_permutation_of_the_batch(CutMix())


def jigsaw_law() -> None:
    test_jigsaw_of_four_tiles_is_fair("uniform", 24)


def chance_law() -> None:
    test_p_is_hit_once(lambda p: CutMix(p=p), covered_images)


TWINS: dict[str, tuple[Callable[[], None], str, Twin]] = {
    "a uniform weight": (mixup_law, "_beta_variates", lambda uniforms, _: uniforms[..., 0]),
    "Beta of twice alpha": (mixup_law, "_beta_variates", lambda uniforms, alpha: beta_variates(uniforms, 2 * alpha)),
    "the larger weight for the image": (
        mixup_law,
        "_beta_variates",
        lambda uniforms, alpha: torch.maximum(weight := beta_variates(uniforms, alpha), 1 - weight),
    ),
    "alpha 10 % too large": (
        lambda: test_weights_are_drawn_from_beta(5.0, "CutMix"),
        "_beta_variates",
        lambda uniforms, alpha: beta_variates(uniforms, 1.1 * alpha),
    ),
    "one weight for neighbours": (
        mixup_law,
        "_beta_variates",
        lambda uniforms, alpha: beta_variates(uniforms[::2].repeat_interleave(2, 0), alpha),
    ),
    "a box shifted, not clipped": (box_law, "_clipped_box", shift_box_inside),
    "sides in proportion to the area": (
        box_law,
        "_clipped_box",
        lambda reach, centre, size: clipped_box(reach**2, centre, size),
    ),
    "centres that spare the border": (
        box_law,
        "_clipped_box",
        lambda reach, centre, size: clipped_box(reach, 0.05 + 0.9 * centre, size),
    ),
    "rows for columns": (
        box_law,
        "_clipped_box",
        lambda reach, centre, size: clipped_box(reach, centre, size[::-1])[..., [1, 0, 3, 2]].clamp(max=min(size)),
    ),
    "centres rounded, not cut off": (
        test_box_centres_are_uniform_over_the_pixels_of_each_axis,
        "_clipped_box",
        lambda reach, centre, size: clipped_box(reach, centre + 0.5 / torch.tensor(size), size),
    ),
    "one area for both boxes": (
        test_boxes_of_one_batch_are_independent,
        "_beta_variates",
        lambda uniforms, alpha: beta_variates(uniforms[:1], alpha).expand(uniforms.shape[:-1]),
    ),
    "one draw for the batch": (
        test_boxes_of_one_batch_are_independent,
        "_uniforms",
        lambda batch, columns, _, generator: draw_uniforms(batch, columns, "batch", generator),
    ),
    "partners that differ from the image": (partner_law, "_draw_partners", derange),
    "partners rotated": (partner_law, "_draw_partners", rotate),
    "partners drawn one by one": (
        partner_law,
        "_draw_partners",
        lambda batch, generator: torch.randint(batch, (batch,), generator=generator, dtype=torch.int32),
    ),
    "tiles swapped naively": (jigsaw_law, "_argsort", swap_naively),
    "a last tile that stays": (jigsaw_law, "_argsort", keep_last),
    "a cycle for a permutation": (jigsaw_law, "_argsort", one_cycle),
    "a permutation for a cycle": (
        lambda: test_jigsaw_of_four_tiles_is_fair("cyclic", 6),
        "_argsort",
        lambda uniforms: one_cycle(uniforms).roll(1, 1),
    ),
    "a level too few": (
        test_mosaic_levels_are_independent,
        "nested_shuffles",
        change(slice(2, 3), torch.zeros_like),
    ),
    "one shuffle on all levels": (
        test_mosaic_levels_are_independent,
        "nested_shuffles",
        lambda uniforms, permutation: nested_shuffles(uniforms[:, [0, 1, 0, 3]], permutation),
    ),
    "one quadrant entered less often": (
        test_mosaic_levels_are_independent,
        "nested_shuffles",
        change(slice(1, 2), lambda uniforms: 0.95 * uniforms),
    ),
    "one shuffle drawn less often": (
        lambda: test_cyclic_mosaic_has_the_published_arrangements(1, 6),
        "nested_shuffles",
        change(slice(0, 1), lambda uniforms: 0.99 * uniforms),
    ),
    "cycles for all shuffles": (
        test_mosaic_shuffles_uniformly_on_every_level,
        "nested_shuffles",
        lambda uniforms, _: nested_shuffles(uniforms, "cyclic"),
    ),
    "phases that share a draw": (
        test_phases_are_drawn_one_by_one_or_stop_earlier,
        "mosaic_phases",
        lambda *arguments, chain, **options: mosaic_phases(*arguments, chain="shared", **options),  # noqa: ARG005
    ),
    "phases drawn one by one for a shared draw": (
        test_phases_are_drawn_one_by_one_or_stop_earlier,
        "mosaic_phases",
        lambda *arguments, chain, **options: mosaic_phases(*arguments, chain="independent", **options),  # noqa: ARG005
    ),
    "one box for both images": (
        test_boxes_of_one_batch_are_independent,
        "_clipped_box",
        lambda share, centre, size: clipped_box(share[:1], centre[:1], size).expand(2, -1, -1),
    ),
    "p of tiles hit twice": (
        lambda: test_p_is_hit_once(lambda p: Jigsaw(2, p=p, permutation="cyclic"), moved_images),
        "_tile_plan",
        lambda batch, order, block, size, p: tile_plan(batch, order, block, size, p**2),
    ),
    "a member for each image of a batch": (
        test_one_of_per_batch_chooses_once_for_all_by_the_weights,
        "one_of",
        choose_by(lambda weights: weights.cumsum(0)),
    ),
    "p hit for each image of a batch": (
        test_p_per_batch_is_hit_once_for_all,
        "_uniforms",
        lambda batch, columns, per, generator, **_: draw_uniforms(batch, columns, "sample", generator),  # noqa: ARG005
    ),
    "p hit twice": (chance_law, "_apply_chance", lambda values, block, p: apply_chance(values, block, p**2)),
    "p hit the other way round": (
        chance_law,
        "_apply_chance",
        lambda values, block, p: apply_chance(values, 1 - block, 1 - p),
    ),
    "p hit in compose by one seed": (
        test_p_is_hit_once_inside_compose,
        "split_generator",
        lambda count, _: [seeded(5) for _ in range(count)],
    ),
    "weights left aside": (
        test_p_is_hit_once_inside_one_of_and_weights_are_kept,
        "one_of",
        choose_by(lambda weights: torch.ones_like(weights).cumsum(0)),
    ),
    "weights of the next member": (
        test_p_is_hit_once_inside_one_of_and_weights_are_kept,
        "one_of",
        choose_by(lambda weights: weights.roll(1).cumsum(0)),
    ),
}


@pytest.mark.parametrize(("law", "name", "twin"), TWINS.values(), ids=TWINS)
def test_a_wrong_law_is_caught(law: Callable[[], None], name: str, twin: Twin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, name, twin)
    with pytest.raises(AssertionError):
        law()


def test_seeds_that_are_added_up_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def add_up(seed: int, iteration: int = 0, epoch: int = 0) -> torch.Generator:
        return seeded(seed + iteration + epoch)

    monkeypatch.setitem(globals(), "batch_generator", add_up)
    with pytest.raises(AssertionError):
        test_seeds_of_batches_epochs_and_neighbouring_runs_do_not_meet()


def test_permutations_are_the_same_without_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    uniforms = torch.rand(50, 9, generator=seeded(1), dtype=torch.float64)
    found = sampling._argsort(uniforms)
    monkeypatch.setattr(sampling, "_HAS_NUMPY", False)
    assert torch.equal(sampling._argsort(uniforms), found)
    assert torch.equal(found, uniforms.argsort(1))
