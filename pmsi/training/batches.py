"""Mini-batches of an epoch: order, crops, augmentation draws, and each process's share. Positions only, no pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from mosaicaug import Plan
from pmsi.recipe import Recipe
from pmsi.runtime.seeding import make_generator
from pmsi.training.phases import Draw, draw_phases


def draw_balanced(
    labels: Tensor,
    num_batches: int,
    *,
    classes: int = 8,
    samples: int = 4,
    generator: Generator | None = None,
) -> Tensor:
    """Mini-batches of as many images of each of some classes, int64 ``[num_batches, classes * samples]``.

    Classes are drawn without replacement for each batch; a class's images come in random order, and all over again
    when fewer than ``samples`` are left.

    Args:
        labels: int64 ``[N]`` of the training images, on the CPU.
        num_batches: rows to draw.
        classes, samples: of a batch, the published code's ``n_classes`` and ``n_samples``.
        generator: of the draws; None is torch's own.

    Raises:
        ValueError: a batch could hold no pair of one class and none of two, there are fewer classes than that, or a
            class has fewer images.

    >>> batches = draw_balanced(torch.arange(20) % 5, 3, classes=2, samples=4)
    >>> batches.shape
    torch.Size([3, 8])
    """
    if classes < 2 or samples < 2:
        raise ValueError(f"draw_balanced: pairs need 2 classes of 2 images or more, got {classes} of {samples}")
    values, counts = torch.unique(labels, return_counts=True)
    if len(values) < classes:
        raise ValueError(f"draw_balanced: a batch needs {classes} classes, the data have {len(values)}")
    if counts.min() < samples:
        least = counts.argmin()
        raise ValueError(
            f"draw_balanced: a batch needs {samples} images of a class, class {values[least]} has {counts[least]}"
        )
    members = [(labels == value).nonzero()[:, 0] for value in values]
    left = [member[:0] for member in members]
    batches = []
    for _ in range(num_batches):
        rows = []
        for k in torch.randperm(len(values), generator=generator)[:classes].tolist():
            if len(left[k]) < samples:
                left[k] = members[k][torch.randperm(len(members[k]), generator=generator)]
            rows.append(left[k][:samples])
            left[k] = left[k][samples:]
        batches.append(torch.cat(rows))
    return torch.stack(batches) if batches else labels.new_empty((0, classes * samples))


@dataclass(frozen=True)
class BatchPlan:
    """One mini-batch of training: which images, which part of each, and what every phase makes of them."""

    index: Tensor  # int64 [B]
    window: Tensor  # int64 [B, 3]
    draws: list[Draw]


@dataclass(frozen=True)
class LocalBatch:
    """What one of several processes makes of a mini-batch: its own images, whose partners may be another's.

    Args:
        rows: its images among the batch's.
        entries: int64 ``[E]``, batch entries whose pixels it needs: ``rows`` first, then partners.
        plans: of each phase, for those entries; the first are the process's images, the others are not wanted.
    """

    rows: slice
    entries: Tensor
    plans: list[Plan]


def take_local(iteration: BatchPlan, rows: slice) -> LocalBatch:
    """The share of the process that has ``rows`` of the batch: all processes together make the whole batch."""
    batch, own = len(iteration.index), torch.arange(len(iteration.index))[rows]
    if len(own) == batch:
        return LocalBatch(rows, own, [draw.plan for draw in iteration.draws])
    plans = {id(draw.plan): draw.plan for draw in iteration.draws}  # phases may share one
    lends = torch.zeros(batch, dtype=torch.bool)
    for plan in plans.values():
        lends[plan.overlay[rows][plan.has_overlay[rows]].long()] = True
    lends[rows] = False
    entries = torch.cat([own, lends.nonzero().flatten()])
    taken = {key: _take(plan, entries, len(own)) for key, plan in plans.items()}
    return LocalBatch(rows, entries, [taken[id(draw.plan)] for draw in iteration.draws])


def _take(plan: Plan, entries: Tensor, count: int) -> Plan:
    """The first ``count`` of ``entries`` as planned, the others as they are. Tiles move within their own image."""
    place = torch.full((len(plan),), -1).scatter(0, entries, torch.arange(len(entries)))
    parts = plan.grid**2
    within = plan.tiles[entries] - parts * entries[:, None]
    assert ((within >= 0) & (within < parts)).all()
    planned = torch.arange(len(entries)) < count
    tiles = torch.where(planned[:, None], within, torch.arange(parts)) + parts * torch.arange(len(entries))[:, None]
    laid = planned & plan.has_overlay[entries]
    return Plan(
        plan.size,
        tiles.int(),
        torch.where(laid, place[plan.overlay[entries].long()], torch.arange(len(entries))).int(),
        plan.from_box[entries],
        torch.where(laid[:, None], plan.to_box[entries], 0),
        plan.opacity[entries],
    )


def count_batches(recipe: Recipe, count: int) -> int:
    """Mini-batches of an epoch over ``count`` training images; a last smaller one is dropped.

    Raises:
        ValueError: fewer images than one batch.
    """
    if count < recipe.batch_size:
        raise ValueError(f"{count} training images do not fill a batch of {recipe.batch_size}; lower --batch-size")
    return count // recipe.batch_size


def plan_epoch(
    recipe: Recipe, count: int, *, seed: int, epoch: int, start: int = 0, labels: Tensor | None = None
) -> Iterator[BatchPlan]:
    """One epoch over ``count`` training images in random order, with random crops and flips.

    Order, crops and flips come from one stream and the augmentation from others, so that recipes that differ in their
    augmentation see the same crops of the same images in the same order. Each mini-batch has an augmentation stream of
    its own: an epoch that goes on at mini-batch ``start`` is the same epoch.

    Args:
        labels: of the images, int64 ``[count]``; needed for ``recipe.classes_per_batch``.

    Raises:
        ValueError: the images do not fill one mini-batch.
    """
    batch, crop = recipe.batch_size, recipe.crop
    crops = make_generator(seed, epoch, 0)
    order = torch.randperm(count, generator=crops)
    if recipe.classes_per_batch is not None:
        assert labels is not None
        samples = batch // recipe.classes_per_batch
        batches = count_batches(recipe, count)
        order = draw_balanced(
            labels, batches, classes=recipe.classes_per_batch, samples=samples, generator=crops
        ).flatten()
    room = recipe.resize - crop + 1
    windows = (torch.rand(count, 3, generator=crops, dtype=torch.float64) * torch.tensor([room, room, 2])).long()
    for done in range(start, count_batches(recipe, count)):
        rows = slice(done * batch, (done + 1) * batch)
        draws = draw_phases(recipe, (batch, 3, crop, crop), make_generator(seed, epoch, 1, done))
        yield BatchPlan(order[rows], windows[rows], draws)
