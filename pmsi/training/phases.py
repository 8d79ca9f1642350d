"""Inputs of the progressive phases: which plan each phase sees, and with which labels (Algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Generator, Tensor

from mosaicaug import Augmentation, CutMix, Jigsaw, MixUp, Plan, RecursiveMosaic, SnapMix, Targets
from pmsi.recipe import Method, Recipe


@dataclass(frozen=True)
class PhaseAugmentation:
    """Entry of `AUGMENTATIONS`: how a method of the comparison makes the inputs of the phases.

    Args:
        label: name in reports.
        mix: makes an augmentation that mixes images and labels; ``recipe.mix_scope`` says which phases share a draw.
        tile: makes the augmentation of the phase with r recursions, which keeps labels.
        caption: text beside the picture of that phase.
        needs_maps: label weights are counted from class activation maps.
    """

    label: str
    mix: Callable[[Recipe], Augmentation] | None = None
    tile: Callable[[Recipe, int], Augmentation] | None = None
    caption: Callable[[int], str] | None = None
    needs_maps: bool = False


# A method is one line here, and its name in `pmsi.recipe.Method`. Order of reports.
AUGMENTATIONS: Mapping[Method, PhaseAugmentation] = {
    "none": PhaseAugmentation("none (baseline)"),
    "cutmix": PhaseAugmentation(
        "CutMix", mix=lambda recipe: CutMix(recipe.cutmix_alpha, p=recipe.cutmix_p, per=recipe.per)
    ),
    "mixup": PhaseAugmentation("MixUp", mix=lambda recipe: MixUp(recipe.mixup_alpha, p=recipe.mixup_p, per=recipe.per)),
    "snapmix": PhaseAugmentation(
        "SnapMix", mix=lambda recipe: SnapMix(recipe.snapmix_beta, p=recipe.snapmix_p, per=recipe.per), needs_maps=True
    ),
    "jigsaw": PhaseAugmentation(
        "jigsaw",
        tile=lambda recipe, r: Jigsaw(2**r, p=recipe.mosaic_p, per=recipe.per, permutation=recipe.permutation),
        caption=lambda r: f"n = {2**r}",
    ),
    "rmg": PhaseAugmentation(
        "RMG (the paper's)",
        tile=lambda recipe, r: RecursiveMosaic(r, p=recipe.mosaic_p, per=recipe.per, permutation=recipe.permutation),
        caption=lambda r: f"r = {r}",
    ),
}


@dataclass(frozen=True)
class Phase:
    """One optimiser step of an iteration.

    Args:
        output: stage whose logits are trained, counted from the shallowest; None for the concat logits.
        recursions: r of the mosaic, or log2 of the jigsaw's tiles per side; 0 is the raw image.
        weight: of the loss.
    """

    output: int | None
    recursions: int
    weight: float


@dataclass(frozen=True)
class Draw:
    """Plan of a phase, and the augmentation that counts its labels (None keeps them)."""

    plan: Plan
    augmentation: Augmentation | None = None

    def targets(self, labels: Tensor, maps: Tensor | None) -> Tensor | Targets:
        """Targets of the phase for the labels ``[B]`` of the batch."""
        return labels if self.augmentation is None else self.augmentation.targets(self.plan, labels, maps=maps)


def list_phases(recipe: Recipe) -> list[Phase]:
    """List the phases of one iteration: stages shallow to deep with r = N - n + 1 (capped), then the concat.

    >>> [(phase.output, phase.recursions, phase.weight) for phase in list_phases(Recipe())]
    [(0, 3, 1.0), (1, 2, 1.0), (2, 1, 1.0), (None, 0, 2.0)]
    """
    if not recipe.progressive:
        return [Phase(None, 0, 1.0)]
    concat = Phase(None, recipe.concat_recursions, recipe.concat_weight)
    deep_first = range(recipe.stages, 0, -1)
    stages = [Phase(n, min(r, recipe.max_recursions), 1.0) for n, r in enumerate(deep_first)]
    return [*stages, concat]


def draw_phases(
    recipe: Recipe, shape: tuple[int, int, int, int], generator: Generator, *, progress: float = 0.0
) -> list[Draw]:
    """Draw the input of each phase of one iteration, for a batch of ``shape`` ``[B, C, H, W]``.

    Args:
        recipe: phases and augmentation.
        shape: of the batch.
        generator: of the draws.
        progress: share of the run that is done: from ``recipe.mosaic_until`` on, tiles stay in place.

    >>> import torch
    >>> draws = draw_phases(Recipe(), (8, 3, 448, 448), torch.Generator().manual_seed(0))
    >>> [draw.plan.grid for draw in draws]
    [8, 4, 2, 1]
    """
    phases, entry = list_phases(recipe), AUGMENTATIONS[recipe.augmentation]
    raw = Draw(Plan.identity(shape[0], shape[-2:]))
    # 1. Mixing methods: one draw for all phases, one each, or one each but for the last.
    if entry.mix is not None:
        mixing = entry.mix(recipe)
        if recipe.mix_scope == "iteration":
            return [Draw(mixing.sample(shape, generator=generator), mixing)] * len(phases)
        drawn = [Draw(mixing.sample(shape, generator=generator), mixing) for _ in phases]
        return drawn if recipe.mix_scope == "phase" else [*drawn[:-1], raw]
    if entry.tile is None or progress >= recipe.mosaic_until:
        return [raw] * len(phases)
    # 2. Tiles: finer for shallower stages, drawn anew for each phase, or as steps of one recursion.
    tiled = [entry.tile(recipe, phase.recursions) for phase in phases]
    mosaics = [one for one in tiled if isinstance(one, RecursiveMosaic)]
    if mosaics and recipe.chain == "shared":
        deepest = max(mosaics, key=lambda mosaic: mosaic.r)
        plans = deepest.sample_phases(shape, chain="shared", generator=generator)
        return [Draw(plans[deepest.r - mosaic.r]) for mosaic in mosaics]
    return [Draw(one.sample(shape, generator=generator)) for one in tiled]


def needs_maps(recipe: Recipe) -> bool:
    """True if the targets of the recipe's augmentation are counted from class activation maps."""
    return AUGMENTATIONS[recipe.augmentation].needs_maps


def caption_phases(recipe: Recipe) -> list[str]:
    """Captions for the pictures of the phases; a single one where all phases see the same.

    >>> caption_phases(Recipe())
    ['phase 1: r = 3', 'phase 2: r = 2', 'phase 3: r = 1', 'phase 4: r = 0']
    """
    phases, entry = list_phases(recipe), AUGMENTATIONS[recipe.augmentation]
    numbers = [f"phase {k}" for k in range(1, len(phases) + 1)]
    if entry.caption is not None:
        return [f"{number}: {entry.caption(phase.recursions)}" for number, phase in zip(numbers, phases, strict=True)]
    if entry.mix is None or recipe.mix_scope == "iteration":
        return [f"all {len(phases)} phases" if len(phases) > 1 else "the one phase"]
    return numbers
