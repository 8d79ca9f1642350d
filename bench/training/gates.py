"""Gates of the training benchmark: equal pixels, lawful mosaics, equal losses and updates on both sides.

A side that fails is not timed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import RandomCrop

from bench.throughput import gates
from bench.throughput.batch import MEAN, STD
from bench.throughput.cases import centre
from bench.throughput.laws import GateError
from bench.training.ours import Input, OurInput, make_trainer
from bench.training.plain import PHASES, PlainInput, PlainTrainer
from mosaicaug import Plan
from pmsi.data.dataset import Dataset
from pmsi.data.preprocess import IMAGENET_MEAN, IMAGENET_STD, preprocess
from pmsi.data.storage import to_device
from pmsi.models.registry import make_network
from pmsi.recipe import RECIPES, Recipe
from pmsi.training.batches import plan_epoch

LEVELS = 1.01  # of 255: Pillow's bilinear filter (plain) and torchvision's on uint8 tensors (ours) round differently
LOSS = 1e-3  # relative: sums in fp32 have another order in another memory format
UPDATE = 0.2  # relative, of all weights as one vector

Make = Callable[[Path, Recipe, torch.device], Input]


def check_pixels(ours: OurInput, plain: PlainInput, recipe: Recipe, count: int = 8) -> None:
    """Compare the pixels of both sides in windows drawn by torchvision.

    Raises:
        GateError: they differ by more than `LEVELS`, or labels differ.
    """
    rows = torch.linspace(0, len(plain.dataset) - 1, count).long()
    shown, labels, windows = [], [], []
    for row in rows.tolist():
        torch.manual_seed(row)
        image, label = plain.dataset[row]
        torch.manual_seed(row)  # and draw the same again
        blank = torch.empty(3, recipe.resize, recipe.resize)
        y, x, _, _ = RandomCrop.get_params(blank, (recipe.crop, recipe.crop))
        shown.append(image)
        labels.append(label)
        windows.append([y, x, int(torch.rand(1) < 0.5)])
    images, index = next(ours.store.fetch([rows]))
    made = preprocess(images, Plan.identity(count, (recipe.crop, recipe.crop)), index, torch.tensor(windows))
    if ours.store.labels[rows].tolist() != labels:
        raise GateError("the sides label their images differently")
    off = float((to_levels(made) - to_levels(torch.stack(shown))).abs().max())
    if off > LEVELS:
        raise GateError(f"the sides' pixels differ by {off:.1f} levels of 255, and {LEVELS:.0f} is allowed")


def check_mosaics(make: Make, device: torch.device) -> None:
    """Check the mosaics that a side makes for each phase, from files of coded images.

    Raises:
        GateError: a phase is not the mosaic of its level.
    """
    cases = [centre("rmg", task="pipeline", level=level, batch=gates.BATCH, size=gates.SIZE) for _, level, _ in PHASES]
    stored = gates.make_images(cases[0])
    recipe = replace(RECIPES["paper"], resize=stored.shape[-1], crop=gates.SIZE, batch_size=gates.BATCH)
    calls: list[list[Tensor]] = []
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for split in ("train", "test"):
            for number, image in enumerate(stored):
                path = folder / split / f"class {number % 2}" / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
        side = make(folder, recipe, device)
        for epoch in range(gates.CALLS // 2):  # of two mini-batches
            calls += [[image.clone() for image in inputs] for inputs, _ in side.batches(epoch)]
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    for number, case in enumerate(cases):
        outputs = [(to_levels(call[number]) - mean) / std for call in calls]  # normalised as the law reads them
        gates.check_outputs(replace(case, per="batch"), stored, outputs)


def check_step(recipe: Recipe, dataset: Dataset, device: str, folder: Path) -> None:
    """Compare the losses and weight updates of both trainers on one mini-batch, in fp32.

    From random weights, gradients are so steep that at the recipe's rates the next phase's loss depends on the rounding
    of the last bit; a thousandth of the rates keeps the sides together.

    Raises:
        GateError: losses differ by more than `LOSS`, or updates by more than `UPDATE`.
    """
    slow = replace(recipe, lr_backbone=recipe.lr_backbone / 1000, lr_new=recipe.lr_new / 1000)
    ours = make_trainer(dataset, slow, device, "32", folder)
    ours.objective.train()
    target = torch.device(device)
    network = make_network(slow, len(dataset.classes)).to(target)
    network.load_state_dict(ours.network.state_dict())
    before = _flatten(network)
    plain = PlainTrainer(network, slow, slow.epochs * ours.batches)
    iteration = next(plan_epoch(slow, dataset.train.labels, seed=0, epoch=0))
    images, index = next(ours.train.fetch([iteration.index]))
    labels = to_device(dataset.train.labels[iteration.index], target)
    inputs = [preprocess(images, draw.plan, index, iteration.window).contiguous() for draw in iteration.draws]
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # else sums depend on the memory format
        torch.manual_seed(0)  # dropout
        expected = torch.tensor(plain.step(inputs, labels))
        torch.manual_seed(0)
        losses = ours.step(iteration).cpu()
    off = float(((losses - expected) / expected).abs().max())
    if not off <= LOSS:
        raise GateError(f"the losses of a mini-batch differ by {off:.2g} of their size")
    moved = _flatten(network) - before
    off = float((_flatten(ours.network) - before - moved).norm() / moved.norm())
    if not off <= UPDATE:
        raise GateError(f"the weights moved differently, by {off:.2g} of their way")


def to_levels(images: Tensor) -> Tensor:
    """Undo the normalisation of images: levels 0 to 255, float64 on the CPU."""
    mean, std = (torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    return images.cpu().double() * std + mean


def _flatten(network: torch.nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()]).double()
