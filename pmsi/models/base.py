"""Interface between networks and the trainer: `Logits`, and `Network` with its loss and parameter groups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.utils._pytree import _register_namedtuple

from mosaicaug import Targets, cross_entropy
from pmsi.models.backbones import Backbone
from pmsi.recipe import Recipe


class Logits(NamedTuple):
    """Output of a network: one prediction per stage, shallow to deep, and one from all of them.

    Args:
        stages: StageNum tensors ``[B, K]`` (Eq. 4).
        concat: ``[B, K]`` (Eq. 6).
    """

    stages: tuple[Tensor, ...]
    concat: Tensor

    @property
    def mix(self) -> Tensor:
        """Sum of all logits, ``[B, K]`` (Eq. 8)."""
        return torch.stack([*self.stages, self.concat]).sum(0)

    def pick(self, output: int | None) -> Tensor:
        """Logits of one stage, counted from the shallowest, or for None the concat logits.

        Raises:
            ValueError: there is no such stage.
        """
        if output is None:
            return self.concat
        if not 0 <= output < len(self.stages):
            raise ValueError(f"output must be None or one of {len(self.stages)} stages, counted from 0; got {output}")
        return self.stages[output]


_register_namedtuple(Logits, serialized_type_name="pmsi.Logits")  # `torch.export.save` needs a name


class Network(nn.Module):
    """Base class of networks: ``forward(images) -> Logits``, parameter groups and a loss.

    A network with one output returns ``Logits((), logits)``, so that its mix is that output.

    Args:
        backbone: its parameters are the first group.
        num_classes: K.

    Attributes:
        recipe: settings of its publication that differ from recipe "paper".
        label_smoothing: share of every label that the loss spreads over all classes.
        distill_weight: of the cross entropy between the concat logits and the probabilities of the mix, at temperature
            1 (Hinton et al. 2015, section 2), in the loss of the concat logits. No gradient goes through the mix.

    Raises:
        ValueError: fewer than two classes.
    """

    recipe: ClassVar[Mapping[str, Any]] = {}
    label_smoothing = 0.0
    distill_weight = 0.0

    def __init__(self, backbone: Backbone, num_classes: int) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"{type(self).__name__}: needs 2 classes or more, got {num_classes}")
        self.backbone = backbone

    @classmethod
    def from_recipe(cls, backbone: Backbone, num_classes: int, recipe: Recipe) -> Self:  # noqa: ARG003
        """Build the network with the settings of ``recipe`` that it has; override it to read some."""
        return cls(backbone, num_classes)

    def parameter_groups(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Parameters of the backbone, and the newly added ones."""
        backbone = list(self.backbone.parameters())
        known = set(backbone)
        return backbone, [parameter for parameter in self.parameters() if parameter not in known]

    def loss(self, images: Tensor, targets: Tensor | Targets, output: int | None = None) -> Tensor:
        """Loss of one training phase, a scalar.

        Args:
            images: ``[B, 3, H, W]``, normalised.
            targets: as `mosaicaug.cross_entropy` takes them.
            output: the stage that the phase trains, counted from the shallowest; None for the concat or only output.

        Raises:
            ValueError: no such output. TypeError: a network that compares images was given mixed labels.
        """
        logits: Logits = self(images)
        loss = cross_entropy(logits.pick(output), targets, label_smoothing=self.label_smoothing)
        if output is None and self.distill_weight > 0:
            loss = loss + self.distill_weight * cross_entropy(logits.concat, logits.mix.detach().softmax(1))
        return loss
