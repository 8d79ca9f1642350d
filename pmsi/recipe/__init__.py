"""Recipes: named, typed, frozen configurations of a training run. A run is a function of its recipe and its seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from math import inf
from typing import Any, Literal, get_args

from pmsi.recipe.networks import NETWORKS, NetworkName

# How they make inputs is in `pmsi.training.phases.AUGMENTATIONS`.
MixMethod = Literal["none", "cutmix", "mixup", "snapmix"]
TileMethod = Literal["jigsaw", "rmg"]
Method = Literal[MixMethod, TileMethod]
RecipeName = Literal["paper", "released", "modern", "mobile", "quick", "demo", "few-shot"]
METHODS: tuple[Method, ...] = get_args(Method)
WIDTH_MULTS = (0.35, 1.4)  # least and greatest width multiplier of MobileNetV2 (Sandler et al. 2018, section 6.1)


@dataclass(frozen=True)
class Recipe:
    """Settings of a run: everything that decides it, besides data, initial weights and seed.

    Raises:
        ValueError: a field is out of range, or two contradict each other.

    >>> Recipe(network="baseline", augmentation="none", progressive=False, interaction=False).epochs
    150
    >>> Recipe(stages=6)
    Traceback (most recent call last):
    ValueError: recipe: stages must lie in 1..5, got 6
    """

    network: NetworkName = "pmsi"
    """The paper's; its plain baseline; or a rival of Table V, as `pmsi.models.registry` names them."""
    backbone: str = "mobilenet_v2"
    """Or resnet18, resnet34, resnet50 (torchvision's), or timm:NAME for one of timm with five resolution levels."""
    width_mult: float = 1.0
    """Width multiplier of MobileNetV2's channels, 0.35 to 1.4; pretrained weights to download exist for 1.0 alone."""
    augmentation: Method = "rmg"
    """What makes the inputs of the phases: a row of Table IV (R is "rmg")."""
    interaction: bool = True
    """M: multi-stage interaction; without it m_n = x_n."""
    progressive: bool = True
    """P: one optimiser step per stage and one for the concat; without it one step on the concat logits alone."""
    stages: int = 3
    """StageNum: how many of the deepest stages take part, 1 to 5."""
    feature_width: int | None = None
    """Channels of the feature vectors; None is half the last stage's (640 for MobileNetV2)."""
    hidden_width: int | None = None
    """Hidden units of convolutions, MLP and classifiers; None is a quarter of the last stage's (320)."""
    smooth: Literal["full", "separable"] = "full"
    """3x3 of the smooth convolutions: the published one, or a depthwise one before a pointwise one, a ninth of it."""
    smooth_width: int | None = None
    """Channels between the layers of the smooth convolutions; None is hidden_width."""
    dropout: float = 0.5
    """Between the layers of the interaction's MLP."""
    batch_norm_momentum: float = 0.1
    """Of the running statistics of backbone and classifiers; the smooth convolutions keep the published code's 0.01."""
    batch_norm_images: int | None = None
    """Images that share batch-norm statistics in training, whatever the number of processes: a part of a process's
    share (ghost batch-norm), or those of several processes (synchronised, on GPUs); None is a process's own."""
    stem_stride: Literal[1, 2] = 2
    """Of the backbone's first convolution; the published code left a 1 in, its comments and the paper need 2."""

    resize: int = 512
    """Side that every image is resized to once, px."""
    crop: int = 448
    """Side of the random crop in training, px."""
    test_whole: bool = False
    """Test on whole images, rather than on central crops of the size of training."""
    test_every: int = 1
    """Epochs from one test to the next; the last epoch is always tested."""
    batch_size: int = 32
    """Images per mini-batch; a last smaller one is dropped in training."""
    classes_per_batch: int | None = None
    """Mini-batches of so many classes with equally many images each, as API-Net needs; None draws images at random."""
    epochs: int = 150
    """Passes over the training images."""
    freeze_epochs: int = 5
    """First epochs in which the backbone's weights stay (its batch-norm statistics move)."""

    lr_backbone: float = 1e-4
    """Learning rate of the pretrained backbone (peak of "onecycle")."""
    lr_new: float = 1e-3
    """Learning rate of the newly added layers (peak of "onecycle")."""
    layer_decay: float = 1.0
    """Learning rate of each level of the backbone as a share of that of the next deeper one; the deepest has all."""
    schedule: Literal["cosine", "released", "onecycle"] = "cosine"
    """Per mini-batch: to 0 over the run; the released code's (period in images, so all but constant); or one cycle."""
    warmup: float = 0.25
    """Share of the run in which "onecycle" rises to its peak."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """SGD with momentum, or AdamW with torch's betas."""
    momentum: float = 0.9
    """Of SGD."""
    weight_decay: float = 5e-4
    """On all parameters; AdamW's is apart from the gradient, times the learning rate."""
    label_smoothing: float = 0.0
    """Share of every label that is spread over all classes."""
    ema_decay: float | None = None
    """Test a running average of the weights, of which each mini-batch leaves so much (less in the first ones); None
    tests the weights themselves."""
    concat_weight: float = 2.0
    """Weight of the concat phase's loss (both published codes; not in the paper's text)."""
    distill_weight: float = 0.0
    """Weight of the cross entropy between Concat and the probabilities of Mix, its teacher, in the concat phase of
    progressive training; concat_weight is on top."""
    deeper_heads: bool = True
    """Run the heads deeper than the trained one in its phase too; without them zeros take their places in Eq. 1."""
    zero_idle_grads: bool = True
    """Zero gradients between phases rather than drop them, so that idle layers keep weight decay and momentum."""

    mix_scope: Literal["iteration", "phase", "progressive"] = "iteration"
    """Mixing methods: one mixed batch for all phases; a fresh one per phase; or fresh ones and the raw batch last."""
    per: Literal["sample", "batch"] = "batch"
    """Draw an augmentation for every image, or once per batch as all published codes do."""
    permutation: Literal["uniform", "cyclic"] = "cyclic"
    """Law of the 2x2 shuffles and jigsaws; "cyclic" is the published code's, which leaves no tile in place."""
    chain: Literal["independent", "shared"] = "independent"
    """Mosaics of one iteration: drawn anew in every phase, or steps of one recursion (the paper's Fig. 3)."""
    mosaic_p: float = 1.0
    """Chance of a mosaic or jigsaw."""
    mosaic_until: float = 1.0
    """Share of the run with mosaics or jigsaws; in the mini-batches after it all phases see the raw images."""
    max_recursions: int = 3
    """Upper bound of r (the paper's r <= 3, which matters for more than three stages)."""
    concat_recursions: int = 0
    """r of the concat phase's mosaic, or log2 of its jigsaw's tiles per side; 0 is the paper's raw image."""
    cutmix_alpha: float = 3.0
    """Beta(alpha, alpha) of CutMix."""
    cutmix_p: float = 1.0
    """Chance of CutMix."""
    mixup_alpha: float = 1.0
    """Beta(alpha, alpha) of MixUp."""
    mixup_p: float = 0.5
    """Chance of MixUp."""
    snapmix_beta: float = 5.0
    """Beta(beta, beta) of SnapMix."""
    snapmix_p: float = 1.0
    """Chance of SnapMix; its authors use 0.5 from random weights."""

    def __post_init__(self) -> None:
        for name in _ABOVE_ZERO:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"recipe: {name} must be above 0, got {value}")
        for name, bounds in _RANGES.items():
            value = getattr(self, name)
            low, high = bounds(self) if callable(bounds) else bounds
            if value is not None and not low <= value <= high:
                raise ValueError(f"recipe: {name} must lie in {low}..{high}, got {value}")
        for name in ("batch_norm_images", "classes_per_batch"):
            part = getattr(self, name)
            if part is not None and self.batch_size % part:
                raise ValueError(f"recipe: batch_size must be a multiple of {name}, got {self.batch_size} and {part}")
        if self.augmentation in get_args(TileMethod) and not self.progressive:
            raise ValueError(f"recipe: {self.augmentation} makes the phases' inputs, so it needs progressive=True")
        if self.width_mult != 1 and self.backbone != "mobilenet_v2":
            raise ValueError(f"recipe: width_mult={self.width_mult} is for mobilenet_v2; {self.backbone} needs 1.0")
        if self.layer_decay != 1 and self.backbone.startswith("timm:"):
            raise ValueError(
                f"recipe: layer_decay={self.layer_decay} needs a backbone whose levels are known, and those of "
                f"{self.backbone} are not; set layer_decay=1.0"
            )
        self._check_network()

    def _check_network(self) -> None:
        if self.network not in NETWORKS:
            raise ValueError(f"recipe: network must be one of {', '.join(NETWORKS)}; got {self.network!r}")
        facts = NETWORKS[self.network]
        compares, halves = facts.compares_images is not None, facts.compares_images == "halves"
        unpaired = facts.compares_images == "classes" and self.classes_per_batch is None
        for is_wrong, what in (
            (facts.outputs == "one" and self.progressive, "has one output to train, so it needs progressive=False"),
            (not facts.interacts and self.interaction, "has no interaction, so it needs interaction=False"),
            (compares and self.augmentation != "none", 'compares images, so it needs augmentation="none"'),
            (compares and self.label_smoothing > 0, "has a loss of its own, so it needs label_smoothing=0"),
            (halves and self.batch_size % 2 == 1, "compares halves of a batch, so batch_size must be even"),
            (unpaired, "needs pairs of a class: set classes_per_batch"),
        ):
            if is_wrong:
                raise ValueError(f"recipe: network {self.network} {what}")

    @property
    def test_side(self) -> int:
        """Side of test images as network inputs, px."""
        return self.resize if self.test_whole else self.crop

    def is_tested(self, epoch: int) -> bool:
        """Test for an epoch, counted from 1, after which the network is tested."""
        return epoch % self.test_every == 0 or epoch == self.epochs

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


# Bounds of the fields. A field may also be None if its type says so.
_ABOVE_ZERO = (
    "batch_size",
    "epochs",
    "test_every",
    "crop",
    "feature_width",
    "hidden_width",
    "smooth_width",
    "lr_backbone",
    "lr_new",
    "layer_decay",
    "concat_weight",
    "cutmix_alpha",
    "mixup_alpha",
    "snapmix_beta",
)
_RANGES: Mapping[str, tuple[float, float] | Callable[[Recipe], tuple[float, float]]] = {
    "width_mult": WIDTH_MULTS,
    "stages": (1, 5),
    "freeze_epochs": lambda recipe: (0, recipe.epochs),
    "resize": lambda recipe: (recipe.crop, inf),
    "label_smoothing": (0, 1),
    "ema_decay": (0, 1),
    "layer_decay": (0, 1),
    "distill_weight": (0, inf),
    "mosaic_p": (0, 1),
    "mosaic_until": (0, 1),
    "batch_size": (2, inf),  # batch norm needs two
    "dropout": (0, 1),
    "batch_norm_momentum": (0, 1),
    "batch_norm_images": lambda recipe: (2, recipe.batch_size),
    "classes_per_batch": lambda recipe: (2, recipe.batch_size // 2),
    "momentum": (0, 1),
    "weight_decay": (0, inf),
    "cutmix_p": (0, 1),
    "mixup_p": (0, 1),
    "snapmix_p": (0, 1),
    "warmup": (0, 1),
    "max_recursions": (0, 10),
    "concat_recursions": lambda recipe: (0, recipe.max_recursions),
}

# The text's figures (section IV-A) with the published code's law of the mosaic.
_PAPER = Recipe()

# Ours: the same network, trained otherwise. Of the changes that `pmsi reproduce candidates` tries on images held out of
# the training images, those under which accuracy rose (docs/reproduced.md); "half of the images" needs a draw for each.
MODERN: dict[str, Any] = {"per": "sample", "mosaic_p": 0.5, "ema_decay": 0.999}
# Heads for a phone, taught by Mix: the best of those that `pmsi reproduce mobile` tries (docs/reproduced.md).
_HEADS: dict[str, Any] = {"smooth": "separable", "feature_width": 320, "hidden_width": 256, "smooth_width": 80}
MOBILE: dict[str, Any] = {**_HEADS, "distill_weight": 1.0}

# Minutes on two cores, from pretrained weights: small images, narrow heads, one cycle. So few steps underfit: hence
# less dropout, gentler mixing, and a draw for every image.
_QUICK = replace(
    _PAPER,
    resize=110,
    crop=96,
    feature_width=256,
    hidden_width=128,
    dropout=0.2,
    epochs=4,
    freeze_epochs=0,
    lr_backbone=1e-3,
    lr_new=1e-2,
    schedule="onecycle",
    per="sample",
    cutmix_p=0.5,
    snapmix_p=0.5,
)

# A minute a row on two cores, from random weights: the embedded typefaces. Maps of 2 x 2 px make statistics of ten
# batches so noisy that a network may lose ten points in the test.
_DEMO = replace(
    _QUICK,
    resize=72,
    crop=64,
    feature_width=128,
    hidden_width=64,
    lr_backbone=0.05,
    lr_new=0.05,
    warmup=0.1,
    batch_norm_momentum=0.02,
)
_SMALL: dict[str, Any] = {"width_mult": 0.35, "resize": 63, "crop": 56, "feature_width": 64, "hidden_width": 32}

RECIPES: dict[RecipeName, Recipe] = {
    "paper": _PAPER,
    "modern": replace(_PAPER, **MODERN),
    "mobile": replace(_PAPER, **MOBILE),
    # The published code's figures: its cosine's period counts images, its steps batches, so the rate hardly falls; it
    # ran on two GPUs with 16 images each.
    "released": replace(_PAPER, lr_backbone=3e-4, lr_new=3e-3, schedule="released", batch_norm_images=16),
    "quick": _QUICK,
    "demo": _DEMO,
    # Many epochs on few images, as in the paper, where a regulariser may pay off; two and a half minutes a row on one
    # core for ten images of each typeface, of which five batches use all.
    "few-shot": replace(_DEMO, **_SMALL, batch_size=24, epochs=140, test_every=70),
}
