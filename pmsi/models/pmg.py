"""PMG: Fine-Grained Visual Classification via Progressive Multi-Granularity Training of Jigsaw Patches (Du et al.,
ECCV 2020, section 3).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pmsi.models.backbones import Backbone
from pmsi.models.pmsi import PMSI
from pmsi.recipe import Recipe

PUBLISHED_WIDTHS = {"feature_width": 1024, "hidden_width": 512}


class PMG(PMSI):
    """PMSI without interaction, which is how PMSI came about: the vectors go to the classifiers as they are.

    Section 3.1 beside `PMSI`'s parts: ``smooth`` with the global max pooling is H_conv (V^l from the map F^l), the
    ``classifiers`` are H_class (y^l from V^l), and ``concat_classifier`` reads the concatenation of all V^l. A stage's
    loss reaches that stage and shallower ones only. At test time y^concat is one answer, the sum of all logits (`mix`)
    the other.

    Args:
        backbone: five stages, of which the deepest ``stages`` (S) take part.
        num_classes: K.
        stages: S, 3 as published.
        feature_width, hidden_width: None is half and a quarter of the last stage's channels, which on ResNet-50 are
            the published 1024 and 512; `PUBLISHED_WIDTHS` are these two for any backbone.

    >>> from pmsi.models.backbones import make_mobilenet_v2
    >>> logits = PMG(make_mobilenet_v2(), 200, **PUBLISHED_WIDTHS).eval()(torch.rand(2, 3, 64, 64))
    >>> len(logits.stages), logits.mix.shape
    (3, torch.Size([2, 200]))
    """

    # The published code (ResNet-50, 448 px from 550, 89.6 % on CUB): SGD, momentum 0.9, weight decay 5e-4, cosine to 0,
    # and per mini-batch four steps: jigsaws of n = 8, 4 and 2 (n = 2^(L-l+1) for stage l of L), each with its stage's
    # loss, then the raw images with twice the concat loss. Rates for ResNet-50; no publication gives some for
    # MobileNetV2.
    recipe: ClassVar[Mapping[str, Any]] = {
        "augmentation": "jigsaw",
        "interaction": False,
        "resize": 550,
        "batch_size": 16,
        "epochs": 200,
        "freeze_epochs": 0,
        "lr_backbone": 2e-4,
        "lr_new": 2e-3,
    }

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        stages: int = 3,
        feature_width: int | None = None,
        hidden_width: int | None = None,
    ) -> None:
        super().__init__(
            backbone,
            num_classes,
            stages=stages,
            interaction=False,
            feature_width=feature_width,
            hidden_width=hidden_width,
        )

    @classmethod
    def from_recipe(cls, backbone: Backbone, num_classes: int, recipe: Recipe) -> Self:
        """Build the network with the recipe's stages and widths."""
        return cls(
            backbone,
            num_classes,
            stages=recipe.stages,
            feature_width=recipe.feature_width,
            hidden_width=recipe.hidden_width,
        )
