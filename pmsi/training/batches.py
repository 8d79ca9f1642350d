"""Mini-batches of an epoch: order, crops, augmentation draws, and the share of each process. Positions, no pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from mosaicaug import Plan
from pmsi.data.dataset import Dataset
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
    """Draw mini-batches of ``samples`` images of each of some classes, int64 ``[num_batches, classes * samples]``.

    Classes are drawn without replacement for each batch; the images of a class come in random order, which starts anew
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
    """Plan of one training mini-batch: images, labels, crops, and the draw of every phase.

    Args:
        index: int64 ``[B]``, rows of the training images.
        labels: int64 ``[B]``.
        window: int64 ``[B, 3]``: y, x and flip of each crop.
        draws: one for each phase; phases may share one.
    """

    index: Tensor
    labels: Tensor
    window: Tensor
    draws: list[Draw]


@dataclass(frozen=True)
class LocalBatch:
    """Share of a mini-batch that one process computes: its own images, and partners that they are mixed with.

    Args:
        batch: the whole mini-batch.
        rows: own images among the batch's B, from a start to a stop.
        index: int64 ``[E]``, rows of the training images whose pixels are needed: the own first, then partners.
        window: int64 ``[E, 3]``, crops of these.
        plans: one for each phase over these E images; only the first outputs, the own images, are used.
    """

    batch: BatchPlan
    rows: slice
    index: Tensor
    window: Tensor
    plans: list[Plan]

    @property
    def count(self) -> int:
        """Number of own images."""
        return int(self.rows.stop - self.rows.start)


def take_local(batch: BatchPlan, rows: slice) -> LocalBatch:
    """Share of the process that computes ``rows``; the shares of all processes make the whole batch."""
    own = torch.arange(len(batch.index))[rows]
    rows = slice(*rows.indices(len(batch.index))[:2])
    if len(own) == len(batch.index):
        return LocalBatch(batch, rows, batch.index, batch.window, [draw.plan for draw in batch.draws])
    # 1. Partners: images of other processes that a plan lays over own ones.
    plans = {id(draw.plan): draw.plan for draw in batch.draws}  # phases may share one
    lends = torch.zeros(len(batch.index), dtype=torch.bool)
    for plan in plans.values():
        lends[plan.overlay[rows][plan.has_overlay[rows]].long()] = True
    lends[rows] = False
    # 2. Each plan once, over own images and partners.
    entries = torch.cat([own, lends.nonzero().flatten()])
    taken = {key: _take(plan, entries, len(own)) for key, plan in plans.items()}
    local = [taken[id(draw.plan)] for draw in batch.draws]
    return LocalBatch(batch, rows, batch.index[entries], batch.window[entries], local)


def _take(plan: Plan, entries: Tensor, count: int) -> Plan:
    """Plan over ``entries`` of the batch: the first ``count`` as planned, the others untouched."""
    place = torch.full((len(plan),), -1).scatter(0, entries, torch.arange(len(entries)))
    parts = plan.grid**2
    # Tiles move within their own image.
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
    """Number of mini-batches in an epoch over ``count`` training images; a last smaller one is dropped.

    Raises:
        ValueError: fewer images than one batch.
    """
    if count < recipe.batch_size:
        raise ValueError(f"{count} training images do not fill a batch of {recipe.batch_size}; lower --batch-size")
    return count // recipe.batch_size


def plan_epoch(recipe: Recipe, labels: Tensor, *, seed: int, epoch: int, start: int = 0) -> Iterator[BatchPlan]:
    """Plan one epoch over all training images in random order, with random crops and flips.

    Order, crops and flips come from one stream and the augmentation from others, so that recipes that differ in their
    augmentation see the same crops of the same images in the same order. Each mini-batch has an augmentation stream of
    its own: an epoch that continues at mini-batch ``start`` is the same epoch.

    Args:
        recipe: sizes, mini-batch and augmentation.
        labels: int64 ``[N]`` of the training images, on the CPU.
        seed, epoch: key of all draws.
        start: first mini-batch to yield.

    Raises:
        ValueError: the images do not fill one mini-batch, or cannot be balanced (``recipe.classes_per_batch``).

    >>> labels = torch.arange(64) % 4
    >>> first, second = plan_epoch(Recipe(resize=36, crop=32), labels, seed=0, epoch=0)
    >>> first.index.shape, first.window.shape, [draw.plan.grid for draw in first.draws]
    (torch.Size([32]), torch.Size([32, 3]), [8, 4, 2, 1])
    """
    batch, crop, count = recipe.batch_size, recipe.crop, len(labels)
    batches = count_batches(recipe, count)
    crops = make_generator(seed, epoch, 0)
    order = torch.randperm(count, generator=crops)
    if recipe.classes_per_batch is not None:
        samples = batch // recipe.classes_per_batch
        order = draw_balanced(
            labels, batches, classes=recipe.classes_per_batch, samples=samples, generator=crops
        ).flatten()
    room = recipe.resize - crop + 1
    windows = (torch.rand(count, 3, generator=crops, dtype=torch.float64) * torch.tensor([room, room, 2])).long()
    for done in range(start, batches):
        rows = slice(done * batch, (done + 1) * batch)
        progress = (epoch * batches + done) / (recipe.epochs * batches)
        stream = make_generator(seed, epoch, 1, done)
        draws = draw_phases(recipe, (batch, 3, crop, crop), stream, progress=progress)
        yield BatchPlan(order[rows], labels[order[rows]], windows[rows], draws)


def check_sizes(recipe: Recipe, dataset: Dataset, processes: int) -> None:
    """Check that processes can share the recipe's mini-batches, and that the images have its size."""
    side = dataset.test.images.shape[-1]
    if recipe.batch_size % processes:
        raise ValueError(f"{processes} processes cannot share batches of {recipe.batch_size} equally; change one")
    if side != recipe.resize:
        raise ValueError(f"Trainer: the recipe's images have {recipe.resize} px, the data set's {side}; set resize")
