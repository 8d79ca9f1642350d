"""Random draws of plans: the only module of the package that takes random numbers.

A block of uniforms with one row per image, ``[B, k]`` in row-major order, feeds every choice that belongs to one image,
so image i's draw does not depend on how many images follow it. Column 0 decides whether the image is augmented at all.
Partners are one permutation of the batch, drawn after the block. Everything is drawn on the CPU: one seed, one plan,
whatever the device of the images.

On a GPU an image costs less than a microsecond and every small torch operation here one to three, so the operations are
few, and none is repeated per level or tile. A test counts them. None is one that torch leaves to MKL (cos, sqrt, exp,
trunc, products of floating-point matrices): after `torch.set_num_threads` it wakes all threads for the smallest tensor,
and waits for them, 8 ms each where others use the cores.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.util import find_spec
from typing import Literal, NamedTuple, TypeVar

import torch
from torch import Generator, Tensor
from torch._functorch import pyfunctorch

from mosaicaug.contents import Contents, Overlay, remember_contents
from mosaicaug.plan import Plan, arange, build_unchecked, no_overlay
from mosaicaug.zorder import Permutation, nested_shuffles

T = TypeVar("T")
Per = Literal["sample", "batch"]
Chain = Literal["independent", "shared"]

_HAS_NUMPY = find_spec("numpy") is not None  # torch runs without it, but then has no `Tensor.numpy`


def recursive_mosaic(
    batch: int,
    size: tuple[int, int],
    r: int,
    *,
    p: float,
    per: Per,
    permutation: Permutation,
    generator: Generator | None,
) -> Plan:
    """Draw ``r`` nested 2x2 shuffles, each within a random quadrant of the one before."""
    return _mosaic_plan(batch, _uniforms(batch, 1 + 2 * r, per, generator, repeat=False), size, p, permutation)


def mosaic_phases(
    batch: int,
    size: tuple[int, int],
    r: int,
    *,
    chain: Chain,
    p: float,
    per: Per,
    permutation: Permutation,
    generator: Generator | None,
) -> list[Plan]:
    """Draw plans of r, r-1, ..., 0 recursions; a shared chain draws once, and each phase stops one shuffle earlier."""
    if chain == "shared":
        block = _uniforms(batch, 1 + 2 * r, per, generator, repeat=False)
        blocks = [block[:, : 1 + 2 * level] for level in range(r, -1, -1)]
    else:
        generators = split_generator(r + 1, generator)
        levels = zip(range(r, -1, -1), generators, strict=True)
        blocks = [_uniforms(batch, 1 + 2 * level, per, own, repeat=False) for level, own in levels]
    return [_mosaic_plan(batch, block, size, p, permutation) for block in blocks]


def jigsaw(
    batch: int,
    size: tuple[int, int],
    n: int,
    *,
    p: float,
    per: Per,
    permutation: Permutation,
    generator: Generator | None,
) -> Plan:
    """Draw a permutation of each image's own ``n`` x ``n`` tiles; "cyclic" is one random cycle through all of them."""
    block = _uniforms(batch, 1 + n * n, per, generator, repeat=False)
    order = _argsort(block[:, 1:])
    if permutation == "cyclic":
        order = torch.empty_like(order).scatter_(1, order, order.roll(-1, 1))
    return _tile_plan(batch, order.int(), block, size, p)


def cutmix(
    batch: int, size: tuple[int, int], alpha: float, *, p: float, per: Per, true_area: bool, generator: Generator | None
) -> Plan:
    """Draw one box of a partner, pasted at its own place, with a relative area of 1 - Beta(alpha, alpha)."""
    cut = draw_cutmix(batch, alpha, per=per, generator=generator)
    box = _apply_chance(_clipped_box(cut.reach, cut.centre, size), cut.block, p)
    drawn = None if true_area else _apply_chance(cut.share[:, None], cut.block, p)[:, 0].float()
    return _overlay_plan(batch, size, cut.partner, box, box, drawn=drawn)


def draw_cutmix(batch: int, alpha: float, *, per: Per, generator: Generator | None) -> BoxDraw:
    """Draw the random part of `cutmix`: areas and centres relative to the image."""
    block = _uniforms(batch, 5, per, generator)
    share = _beta_variates(block[:, 1:3], alpha)
    return BoxDraw(block, share, _square_root(share), block[:, 3:5], _draw_partners(batch, generator))


def mixup(batch: int, size: tuple[int, int], alpha: float, *, p: float, per: Per, generator: Generator | None) -> Plan:
    """Draw a partner to blend in as a whole, with a weight of 1 - Beta(alpha, alpha)."""
    block = _uniforms(batch, 3, per, generator)
    opacity = _beta_variates(block[:, 1:3], alpha).float()
    whole = torch.tensor([0, 0, *size], dtype=torch.int32, device="cpu").expand(batch, 4)
    whole = _apply_chance(whole, block, p).contiguous()
    partner = _draw_partners(batch, generator)
    return _overlay_plan(batch, size, partner, whole, whole, opacity=opacity, kind=Overlay.WHOLE)


def snapmix(batch: int, size: tuple[int, int], beta: float, *, p: float, per: Per, generator: Generator | None) -> Plan:
    """Draw a box of a partner and another box to resample it into, both of relative area 1 - Beta(beta, beta)."""
    cut = draw_snapmix(batch, beta, per=per, generator=generator)
    boxes = _clipped_box(cut.reach, cut.centre, size)
    if batch and float(cut.reach.amin()) * min(size) < 2:  # a box is empty, and then the image's other one is as well
        boxes = boxes * (boxes[..., 2:] > boxes[..., :2]).all((0, 2), keepdim=True)
    to_box, from_box = _apply_chance(boxes, cut.block, p).unbind()
    return _overlay_plan(batch, size, cut.partner, from_box, to_box, kind=Overlay.RESAMPLED)


def draw_snapmix(batch: int, beta: float, *, per: Per, generator: Generator | None) -> BoxDraw:
    """Draw the random part of `snapmix`: areas and centres relative to the image, to_box before from_box."""
    block = _uniforms(batch, 9, per, generator)
    draws = block.as_strided((2, batch, 4), (4, 9, 1), 1).contiguous()  # of each row its last two times four numbers
    share = _beta_variates(draws[..., :2], beta)
    return BoxDraw(block, share, _square_root(share), draws[..., 2:], _draw_partners(batch, generator))


class BoxDraw(NamedTuple):
    """Boxes relative to the image, and partners: a draw that does not depend on the images' size.

    Attributes:
        block: float64 ``[B, k]``, the uniforms that the draw was made from; column 0 is compared with p.
        share: float64 ``[..., B]``, relative areas.
        reach: float64 ``[..., B]``, relative sides: roots of ``share``.
        centre: float64 ``[..., B, 2]``, relative centres, y before x.
        partner: int32 ``[B]``, image that the overlay is cut from.
    """

    block: Tensor
    share: Tensor
    reach: Tensor
    centre: Tensor
    partner: Tensor


def one_of(batch: int, weights: Sequence[float], *, per: Per, generator: Generator | None) -> Tensor:
    """Draw the member that makes each image: int64 ``[B]``, k with a chance of ``weights[k] / sum(weights)``."""
    bounds = torch.tensor(weights, dtype=torch.float64, device="cpu").cumsum(0)
    choice = torch.searchsorted(bounds, _uniforms(batch, 1, per, generator)[:, 0] * bounds[-1], right=True)
    return choice.clamp(max=len(weights) - 1)


def batch_generator(seed: int, iteration: int = 0, epoch: int = 0) -> Generator:
    """Make the generator of one batch of a run: ``manual_seed(seed)`` for the first, another for each of the others.

    Torch's generator reads the lower 32 bits of a seed alone: these odd factors spread them, so that neither the
    batches of a run nor runs of neighbouring seeds meet.
    """
    return Generator("cpu").manual_seed((seed + iteration * 0x9E3779B1 + epoch * 0x85EBCA77) % 2**64)


def split_generator(count: int, generator: Generator | None) -> list[Generator]:
    """Make one independent generator per draw, so that a draw does not depend on how many numbers another one takes."""
    seeds = torch.randint(2**63 - 1, (count,), generator=generator, device="cpu")
    return [Generator("cpu").manual_seed(int(seed)) for seed in seeds]


def draw_plainly(draw: Callable[[], T]) -> T:
    """Result of ``draw`` as ordinary tensors on the CPU, whatever torch's mode or transform: plans outlive these.

    Raises:
        RuntimeError: a vmap wants another draw for each of its entries, or none at all.
    """
    if torch._C._are_functorch_transforms_active():
        for level in pyfunctorch.retrieve_all_functorch_interpreters():
            if isinstance(level, pyfunctorch.VmapInterpreter) and level.randomness() != "same":
                raise RuntimeError(
                    "mosaicaug: a draw makes one plan for all entries of a vmap; use vmap(randomness='same'), or "
                    "sample() outside and apply(images, plan) inside"
                )
        with pyfunctorch.temporarily_clear_interpreter_stack():
            return draw_plainly(draw)
    if torch.is_inference_mode_enabled() or torch._C._len_torch_function_stack():
        with torch.inference_mode(False), torch.device("cpu"):  # noqa: FBT003
            return draw()
    return draw()


def _argsort(uniforms: Tensor) -> Tensor:
    """Argsort of each row of uniforms, int64 ``[B, k]``: a random permutation."""
    bits = (uniforms.shape[1] - 1).bit_length()
    if bits > 10:
        return uniforms.view(torch.int64).argsort(1)  # uniforms are in the order of their bits
    # A uniform's 53 bits and its column fit one integer. Numpy sorts these in a sixth of the time of torch's argsort.
    keys = (uniforms * 2.0**53).long().bitwise_left_shift_(bits).add_(torch.arange(uniforms.shape[1], device="cpu"))
    if _HAS_NUMPY:
        keys.numpy().sort()
    else:
        keys = keys.sort(1).values
    return keys.bitwise_and_(2**bits - 1)


def _uniforms(batch: int, columns: int, per: Per, generator: Generator | None, *, repeat: bool = True) -> Tensor:
    """Draw uniforms, float64 ``[B, columns]``; with ``per="batch"`` one row, repeated B times if ``repeat``."""
    rows = batch if per == "sample" else 1
    block = torch.rand(rows, columns, generator=generator, dtype=torch.float64, device="cpu")
    # A real copy: torch takes powers of one repeated number in two ways, which differ in the last bit.
    return block if per == "sample" or not repeat else block.expand(batch, columns).contiguous()


def _apply_chance(values: Tensor, block: Tensor, p: float) -> Tensor:
    """Set the rows of images that are not augmented (probability 1 - p) to 0."""
    return values if p == 1 else values * (block[:, :1] < p)


def _mosaic_plan(batch: int, block: Tensor, size: tuple[int, int], p: float, permutation: Permutation) -> Plan:
    """Make the plan of nested shuffles from ``block``, ``[B or 1, 1 + 2r]``: column 0, then two uniforms per level."""
    return _tile_plan(batch, nested_shuffles(block[:, 1:], permutation), block, size, p)


def _tile_plan(batch: int, order: Tensor, block: Tensor, size: tuple[int, int], p: float) -> Plan:
    """Make the plan that gives each image its own tiles in ``order`` (int32 ``[B or 1, G*G]``)."""
    count = order.shape[1]
    if p < 1:
        order = torch.where(block[:, :1] < p, order, arange(count))
    first = arange(0, batch * count, count)
    plan = build_unchecked(size, order + first[:, None], *no_overlay(batch))
    return remember_contents(plan, Contents(moves_tiles=count > 1))


def _beta_variates(uniforms: Tensor, alpha: float) -> Tensor:
    """Beta(alpha, alpha), float64 ``[...]``, exactly from two uniforms ``[..., 2]`` (Bailey 1994, Devroye 1996).

    One minus theirs, which has the same law: the share of the partner, where theirs is the image's.
    """
    radius, angle = uniforms.unbind(-1)
    _, half, one = _scalars()
    cosine = torch.polar(one, angle * (2 * math.pi)).real
    spread = radius.pow(-1 / alpha).sub_(1.0).reciprocal_()
    return torch.sub(half, spread.addcmul_(cosine, cosine).rsqrt_().mul_(cosine), alpha=0.5)


@lru_cache
def _scalars() -> tuple[Tensor, Tensor, Tensor]:
    """Make 0, int32, and a half and 1, float64."""
    with torch.inference_mode(False):  # noqa: FBT003
        half = torch.full((), 0.5, dtype=torch.float64, device="cpu")
        return torch.zeros((), dtype=torch.int32, device="cpu"), half, 2 * half


def _square_root(values: Tensor) -> Tensor:
    """Square roots of numbers of 0 or more; `torch.sqrt` may wake threads, see above."""
    return values.rsqrt().reciprocal_()


def _clipped_box(reach: Tensor, centre: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes of relative sides ``reach`` round a centre, clipped to the image as in CutMix: int32 ``[..., 4]``."""
    limit, corners, most = _box_constants(size)
    middle = (centre * limit).int()
    half = (reach.unsqueeze(-1) * corners).int()
    return half.add_(torch.cat((middle, middle), -1)).clamp_(_scalars()[0], most)


@lru_cache
def _box_constants(size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Constants of `_clipped_box` for one size, px: the size, centre to corners, and the most of each coordinate."""
    with torch.inference_mode(False):  # noqa: FBT003
        limit = torch.tensor(size, dtype=torch.float64, device="cpu")
        return limit, torch.cat([-limit, limit]) / 2, limit.int().repeat(2)


def _draw_partners(batch: int, generator: Generator | None) -> Tensor:
    """Draw the image that each overlay is cut from, one permutation of the batch; drawn last."""
    return torch.randperm(batch, generator=generator, dtype=torch.int32, device="cpu")


def _overlay_plan(
    batch: int,
    size: tuple[int, int],
    partner: Tensor,
    from_box: Tensor,
    to_box: Tensor,
    *,
    opacity: Tensor | None = None,
    drawn: Tensor | None = None,
    kind: Overlay = Overlay.IN_PLACE,
) -> Plan:
    """Make the plan that cuts each image's overlay from its partner."""
    contents = Contents(moves_tiles=False, overlay=kind, blends=opacity is not None)
    opacity = torch.ones(batch, dtype=torch.float32, device="cpu") if opacity is None else opacity
    plan = build_unchecked(size, arange(batch)[:, None], partner, from_box, to_box, opacity, drawn)
    return remember_contents(plan, contents)
