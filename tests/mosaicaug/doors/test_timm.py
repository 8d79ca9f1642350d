"""`mosaicaug.timm` stands where timm's ``Mixup`` stood: same signature, same laws, same training step."""

from __future__ import annotations

import inspect
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from mosaicaug import Augmentation, CutMix, Jigsaw, OneOf, RecursiveMosaic, SnapMix, Targets
from mosaicaug.timm import FastCollateMixup, Mixup
from tests.helpers.oracle import compare_samples

timm = pytest.importorskip("timm")
pytest.importorskip("timm.loss")

CLASSES = 10
LABELS = torch.tensor([3, 0, 9, 5, 1, 7, 3])


def make_images(batch: int = 7) -> Tensor:
    return torch.rand(batch, 3, 16, 16)


def see_all(images: Tensor, _: Tensor) -> Tensor:
    """Maps for SnapMix."""
    return images.mean(1)


def collect_own_weights(mixup_fn: Any, mode: str) -> np.ndarray[Any, Any]:
    """Weight of an image's own label where its partner is another one, as timm's always is: one draw each."""
    labels, found = torch.arange(8), []
    for _ in range(500 if mode == "batch" else 60):
        _, target = mixup_fn(torch.zeros(8, 1, 64, 64), labels)
        assert target.shape == (8, 20)
        assert (target.sum(1) - 1).abs().max() < 2**-20
        plan = mixup_fn.augmentation.last_plan if isinstance(mixup_fn, Mixup) else None
        mixed = labels >= 0 if plan is None else plan.overlay != labels
        own = target.diagonal()[mixed]
        found.append(own[:1] if mode == "batch" else own)
        assert mode == "elem" or len(set(own.tolist())) <= 1
    assert mode == "batch" or len(set(torch.cat(found).tolist())) > 2 * len(found)
    return torch.cat(found).double().numpy()


@pytest.mark.parametrize("ours", [Mixup, FastCollateMixup])
def test_arguments_and_defaults_are_those_of_timm(ours: type[Mixup]) -> None:
    *mine, augmentation = inspect.signature(ours).parameters.values()
    theirs = inspect.signature(getattr(timm.data, ours.__name__)).parameters.values()
    pairs = zip(mine, theirs, strict=len(theirs) > 9)  # multi_label, the tenth, came with timm 1.0.31
    assert all((one.name, one.default) == (two.name, two.default) for one, two in pairs)
    assert augmentation.kind is inspect.Parameter.KEYWORD_ONLY


@pytest.mark.parametrize("mode", ["batch", "elem"])
@pytest.mark.parametrize(
    "options",
    [
        {"mixup_alpha": 0.1, "prob": 0.6},
        {"mixup_alpha": 0.0, "cutmix_alpha": 1.0},
        {"mixup_alpha": 0.0, "cutmix_alpha": 1.0, "correct_lam": False},
        {"mixup_alpha": 0.2, "cutmix_alpha": 1.0, "switch_prob": 0.8, "label_smoothing": 0.0},
    ],
    ids=["mixup", "cutmix", "cutmix as drawn", "both"],
)
def test_weights_have_the_law_of_timm(mode: str, options: dict[str, Any]) -> None:
    """Two-sample Kolmogorov-Smirnov at 1 in 1000; a wrong alpha, chance or smoothing gives less than 1e-5."""
    np.random.seed(0)  # noqa: NPY002 - timm draws from it
    ours, theirs = Mixup(mode=mode, num_classes=20, **options), timm.data.Mixup(mode=mode, num_classes=20, **options)
    assert compare_samples(collect_own_weights(ours, mode), collect_own_weights(theirs, mode)) > 1e-3


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.35])
def test_smoothing_is_that_of_timm(smoothing: float) -> None:
    options: dict[str, Any] = {"label_smoothing": smoothing, "num_classes": CLASSES}
    ours, theirs = Mixup(**options), timm.data.Mixup(**options)
    ours.mixup_enabled = theirs.mixup_enabled = False
    images = make_images(6)
    got, target = ours(images, LABELS[:6])
    assert got is images
    assert (target - theirs(images, LABELS[:6])[1]).abs().max() <= 2**-24
    assert target[0, 0] == pytest.approx(smoothing / CLASSES)
    dense = (torch.rand(6, CLASSES) > 0.5).long()
    ours = Mixup(**options, multi_label=True)
    ours.mixup_enabled = False
    assert (ours(images, dense)[1] - (dense * (1 - smoothing) + smoothing / 2)).abs().max() <= 2**-24


@pytest.mark.parametrize("mode", ["batch", "elem"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_targets_say_what_images_show(mode: str, dtype: torch.dtype) -> None:
    """Images of one value each: their means are the targets' means. uint8 rounds pixels by half a grey level."""
    values = (torch.arange(7) * 25).to(dtype)[:, None, None, None]
    images = values.expand(7, 3, 16, 16).contiguous()
    before = images.clone()
    mixup_fn = Mixup(1.0, 1.0, mode=mode, label_smoothing=0.0, num_classes=7)
    for _ in range(10):
        mixed, target = mixup_fn(images, torch.arange(7))
        assert mixed.dtype == dtype
        assert torch.equal(images, before)
        bound = 0.501 if dtype == torch.uint8 else 1e-3
        assert (
            mixed.double().mean((1, 2, 3)) - target.double() @ (25.0 * torch.arange(7).double())
        ).abs().max() < bound


def test_soft_targets_are_mixed_as_they_are() -> None:
    soft = torch.rand(7, CLASSES).softmax(1)
    mixup_fn = Mixup(label_smoothing=0.0, num_classes=CLASSES)
    _, target = mixup_fn(make_images(), soft)
    plan = mixup_fn.augmentation.last_plan
    assert plan is not None
    share = plan.opacity[:, None]
    assert (target - ((1 - share) * soft + share * soft[plan.overlay.long()])).abs().max() < 2**-22


@pytest.mark.parametrize("aug", [RecursiveMosaic(2), Jigsaw(4, p=0.5), CutMix(), SnapMix(cam=see_all)])
def test_any_augmentation_in_its_place(aug: Augmentation) -> None:
    images, mixup_fn = make_images(), Mixup(num_classes=CLASSES, augmentation=aug)
    torch.manual_seed(4)
    got, target = mixup_fn(images, LABELS)
    torch.manual_seed(4)
    want, hard = aug(images, LABELS)
    assert torch.equal(got, want)
    smoothed = torch.full((7, CLASSES), 0.01).scatter_(1, LABELS[:, None], 0.91)
    if isinstance(hard, Targets):
        assert aug.last_plan is not None
        other = smoothed[aug.last_plan.overlay.long()]
        smoothed = hard.weight_a[:, None] * smoothed + hard.weight_b[:, None] * other
    assert (target - smoothed).abs().max() < 2**-20


def test_the_seed_governs() -> None:
    images, mixup_fn = make_images(), Mixup(0.8, 1.0, mode="elem", num_classes=CLASSES)
    runs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        runs.append(mixup_fn(images, LABELS)[0])
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


@pytest.mark.parametrize("options", [{"cutmix_alpha": 1.0}, {"augmentation": RecursiveMosaic(3)}])
def test_a_training_step_of_timm(options: dict[str, Any]) -> None:
    """Steps of timm's script: the call, the loss for soft targets, and the switch at ``--mixup-off-epoch``."""
    model = timm.create_model("resnet10t", pretrained=False, num_classes=CLASSES)
    loss_fn, optimizer = timm.loss.SoftTargetCrossEntropy(), torch.optim.SGD(model.parameters(), lr=0.1)
    mixup_fn = Mixup(mixup_alpha=0.8, num_classes=CLASSES, **options)
    before = model.fc.weight.detach().clone()
    input, target = torch.rand(7, 3, 32, 32), LABELS  # noqa: A001 - the script's names
    for epoch in range(2):
        if epoch == 1:
            mixup_fn.mixup_enabled = False
        mixed, soft = mixup_fn(input, target)
        assert torch.equal(mixed, input) == (epoch == 1)
        loss = loss_fn(model(mixed), soft)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert loss.isfinite()
    assert not torch.equal(model.fc.weight, before)


class Stored(torch.utils.data.Dataset[tuple[Any, int]]):
    """Grey images of the value that is their label, as timm's transforms leave them for its prefetching loader."""

    transform: Any = None

    def __getitem__(self, place: int) -> tuple[Any, int]:
        return np.full((3, 16, 16), 25 * place, dtype=np.uint8), place

    def __len__(self) -> int:
        return CLASSES


def test_the_prefetching_loader_of_timm() -> None:
    options: dict[str, Any] = {"mean": (0.0,) * 3, "std": (1.0,) * 3, "device": torch.device("cpu")}
    mix = FastCollateMixup(cutmix_alpha=1.0, num_classes=CLASSES, label_smoothing=0.0, mode="elem")
    loader = timm.data.create_loader(
        Stored(), (3, 16, 16), 5, is_training=True, no_aug=True, num_workers=0, collate_fn=mix,
        use_prefetcher=True, persistent_workers=False, **options,
    )  # fmt: skip
    for images, target in loader:
        assert images.dtype == torch.float32
        shown = images.double().mean((1, 2, 3)) * 255
        assert (shown - target.double() @ (25.0 * torch.arange(CLASSES).double())).abs().max() < 0.501


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cutmix_minmax": (0.2, 0.8)}, r"cutmix_minmax is not offered, got \(0.2, 0.8\); use cutmix_alpha"),
        ({"mode": "pair"}, "mode must be 'batch' or 'elem', got 'pair'; 'elem' mixes"),
        ({"mixup_alpha": 0.0}, "mixup_alpha or cutmix_alpha must be above 0, got 0.0 and 0.0"),
        ({"label_smoothing": 1.5}, "label_smoothing must lie in 0..1, got 1.5"),
        ({"prob": 2.0}, "MixUp: p must lie in 0..1, got 2.0"),
    ],
)
def test_what_is_not_offered_says_so(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Mixup(**options)


def test_targets_that_do_not_fit() -> None:
    mixup_fn = Mixup(num_classes=5)
    with pytest.raises(ValueError, match=r"Mixup: num_classes=5 needs labels in 0\.\.4, got 0\.\.9"):
        mixup_fn(make_images(), LABELS)
    with pytest.raises(ValueError, match="Mixup: 7 images need 7 labels, got 3"):
        mixup_fn(make_images(), LABELS[:3])
    with pytest.raises(TypeError, match=r"augmentation must be one of mosaicaug, got Mixup"):
        Mixup(augmentation=timm.data.Mixup())


def test_errors_name_the_class_that_was_called() -> None:
    with pytest.raises(ValueError, match=r"^Mixup: num_classes must be at least 1, got 0$"):
        Mixup(num_classes=0)
    with pytest.raises(TypeError, match=r"^Mixup: images must be a tensor"):
        Mixup(num_classes=5)([1, 2], LABELS)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^Mixup: target "):
        Mixup(num_classes=5)(make_images(), object())  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["batch", "elem"])
def test_a_mode_holds_for_the_choice_too(mode: Literal["batch", "elem"]) -> None:
    aug = Mixup(cutmix_alpha=1.0, mode=mode, num_classes=5).augmentation
    assert isinstance(aug, OneOf)
    assert {aug.per, *(member.per for member in aug.members)} == {"batch" if mode == "batch" else "sample"}


def test_targets_lie_where_the_labels_do() -> None:
    labels = torch.tensor([1, 0])
    with torch.device("meta"):
        targets = Mixup(num_classes=2, label_smoothing=0.0)._smooth(labels, 2, labels.device)
    assert targets.tolist() == [[0, 1], [1, 0]]
