"""The inputs of the progressive phases: which plan each phase sees, and with which labels (Algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Generator, Tensor

import mosaicaug
from mosaicaug import Augmentation, CutMix, Jigsaw, MixUp, Plan, RecursiveMosaic, SnapMix, Targets
from pmsi.recipe import Recipe


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
    """A plan, and the augmentation that counts its labels (None: they stay)."""

    plan: Plan
    augmentation: Augmentation | None = None

    def targets(self, labels: Tensor, maps: Tensor | None) -> Tensor | Targets:
        """The phase's targets for the batch's labels."""
        return labels if self.augmentation is None else self.augmentation.targets(self.plan, labels, maps=maps)


def list_phases(recipe: Recipe) -> list[Phase]:
    """Phases of one iteration: stages shallow to deep with r = N - n + 1 (capped), then the concat on r = 0."""
    concat = Phase(None, 0, recipe.concat_weight if recipe.progressive else 1.0)
    if not recipe.progressive:
        return [concat]
    deep_first = range(recipe.stages, 0, -1)
    stages = [Phase(n, min(r, recipe.max_recursions), 1.0) for n, r in enumerate(deep_first)]
    return [*stages, concat]


def draw_phases(recipe: Recipe, shape: tuple[int, int, int, int], generator: Generator) -> list[Draw]:
    """What each phase of one iteration sees, for a batch of ``shape`` ``[B, C, H, W]``."""
    phases = list_phases(recipe)
    raw = Draw(Plan.identity(shape[0], shape[-2:]))
    mixing = _mixing(recipe)
    if mixing is not None:
        if recipe.mix_scope == "iteration":
            return [Draw(mixing.sample(shape, generator=generator), mixing)] * len(phases)
        drawn = [Draw(mixing.sample(shape, generator=generator), mixing) for _ in phases]
        return drawn if recipe.mix_scope == "phase" else [*drawn[:-1], raw]
    how: dict[str, Any] = {"p": recipe.mosaic_p, "per": recipe.per, "permutation": recipe.permutation}
    if recipe.augmentation == "jigsaw":
        jigsaws = [Jigsaw(2**phase.recursions, **how) for phase in phases]
        return [Draw(jigsaw.sample(shape, generator=generator)) for jigsaw in jigsaws]
    if recipe.augmentation == "rmg":
        mosaics = [RecursiveMosaic(phase.recursions, **how) for phase in phases]
        if recipe.chain == "shared":
            deepest = max(mosaics, key=lambda mosaic: mosaic.r)
            plans = deepest.sample_phases(shape, chain="shared", generator=generator)
            return [Draw(plans[deepest.r - mosaic.r]) for mosaic in mosaics]
        return [Draw(mosaic.sample(shape, generator=generator)) for mosaic in mosaics]
    return [raw] * len(phases)


def caption_phases(recipe: Recipe) -> list[str]:
    """What to write beside the pictures of the phases; one caption where all phases see the same."""
    phases = list_phases(recipe)
    number = [f"phase {k}" for k in range(1, len(phases) + 1)]
    if recipe.augmentation == "rmg":
        return [f"{name}: r = {phase.recursions}" for name, phase in zip(number, phases, strict=True)]
    if recipe.augmentation == "jigsaw":
        return [f"{name}: n = {2**phase.recursions}" for name, phase in zip(number, phases, strict=True)]
    if recipe.augmentation == "none" or recipe.mix_scope == "iteration":
        return [f"all {len(phases)} phases" if len(phases) > 1 else "the one phase"]
    return number


def _mixing(recipe: Recipe) -> mosaicaug.Augmentation | None:
    if recipe.augmentation == "cutmix":
        return CutMix(recipe.cutmix_alpha, p=recipe.cutmix_p, per=recipe.per)
    if recipe.augmentation == "mixup":
        return MixUp(recipe.mixup_alpha, p=recipe.mixup_p, per=recipe.per)
    if recipe.augmentation == "snapmix":
        return SnapMix(recipe.snapmix_beta, p=recipe.snapmix_p, per=recipe.per)
    return None
