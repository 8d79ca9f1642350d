"""Corruptions against torchvision and hand-worked pixels; an image's draw depends on its number and the seed alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import v2

from pmsi import paper
from pmsi.data.preprocess import IMAGENET_MEAN, IMAGENET_STD
from pmsi.data.storage import DeviceStore
from pmsi.evaluation.accuracy import Evaluation, evaluate
from pmsi.evaluation.robustness import (
    CORRUPTIONS,
    Robustness,
    add_noise,
    add_published_noise,
    jitter_colors,
    measure_robustness,
)
from pmsi.models.base import Logits
from pmsi.runtime.seeding import make_generator
from tests.helpers.small_run import RECIPE, make_session

NUMBERS = torch.tensor([5, 0, 900, 17])


def draw_images(count: int = 4, *, side: int = 24) -> Tensor:
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8)


def fill(level: int, *, count: int = 1, side: int = 200) -> Tensor:
    return torch.full((count, 3, side, side), level, dtype=torch.uint8)


@pytest.mark.parametrize("corrupt", CORRUPTIONS.values())
def test_draws_depend_on_seed_and_number_alone(corrupt: Callable[..., Tensor]) -> None:
    images = draw_images()
    kept = images.clone()
    found = corrupt(images, NUMBERS, seed=3)
    assert torch.equal(images, kept)
    assert (found.dtype, found.shape) == (torch.uint8, images.shape)
    alone = torch.cat([corrupt(images[row : row + 1], NUMBERS[row : row + 1], seed=3) for row in range(4)])
    assert torch.equal(found, alone)
    order = [2, 0, 3, 1]
    assert torch.equal(corrupt(images[order], NUMBERS[order], seed=3), found[order])
    torch.rand(7)  # the global generator plays no part
    assert torch.equal(corrupt(images, NUMBERS, seed=3), found)
    for other in (corrupt(images, NUMBERS, seed=4), corrupt(images, NUMBERS + 1, seed=3)):
        assert all((a != b).float().mean() > 0.3 for a, b in zip(found, other, strict=True))
    same = corrupt(images[:1].expand(4, 3, 24, 24), NUMBERS, seed=3)
    assert len({tuple(image.flatten().tolist()) for image in same}) == 4


def test_jitter_is_torchvisions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Same factors and order, handed to ColorJitter itself: the same pixels to the bit."""
    images = draw_images()
    jitter = v2.ColorJitter(brightness=1, contrast=1, saturation=1)
    for image, number, found in zip(images, NUMBERS.tolist(), jitter_colors(images, NUMBERS, seed=2), strict=True):
        generator = make_generator(2, number)
        brightness, contrast, saturation = (2 * torch.rand(3, generator=generator, dtype=torch.float64)).tolist()
        order = torch.randperm(3, generator=generator)
        params = {
            "fn_idx": torch.cat([order, torch.tensor([3])]),
            "brightness_factor": brightness,
            "contrast_factor": contrast,
            "saturation_factor": saturation,
            "hue_factor": None,
        }
        monkeypatch.setattr(jitter, "make_params", lambda _, params=params: params)
        assert torch.equal(jitter(image), found)


def test_jitter_has_torchvisions_law() -> None:
    """Mean and spread of grey levels over many draws, against ColorJitter's own draws."""
    image = draw_images(1, side=8)
    many = image.expand(2000, 3, 8, 8)
    ours = jitter_colors(many, torch.arange(2000)).float().mean((1, 2, 3))
    jitter = v2.ColorJitter(brightness=1, contrast=1, saturation=1)
    theirs = torch.stack([jitter(one) for one in many]).float().mean((1, 2, 3))
    # Levels spread by about 60, so means of 2,000 differ by 2 at most in 999 of 1,000 cases, spreads by less than 4.
    assert (ours.mean() - theirs.mean()).abs() < 6
    assert (ours.std() - theirs.std()).abs() < 4
    # Brightness alone is U(0, 2) on grey images, where saturation and contrast change nothing.
    grey = jitter_colors(fill(100, count=1000, side=1), torch.arange(1000))[:, 0, 0, 0].float() / 100
    quantiles = grey.quantile(torch.tensor([0.1, 0.25, 0.5, 0.75, 0.9]))
    assert torch.allclose(quantiles, torch.tensor([0.2, 0.5, 1.0, 1.5, 1.8]), atol=0.15)  # 5 standard deviations


def test_strength_0_changes_nothing() -> None:
    images = draw_images()
    assert torch.equal(jitter_colors(images, NUMBERS, strength=0), images)
    assert torch.equal(add_noise(images, NUMBERS, sigma=0), images)
    assert torch.equal(add_published_noise(images, NUMBERS, sigma=0), images)


def test_noise_has_sigma_5_in_every_channel() -> None:
    noise = (add_noise(fill(128), torch.tensor([4])).float() - 128)[0]
    # 120,000 values: the mean within 0.1 (7 standard errors), and sqrt(25 + 1/12) = 5.01 for rounding.
    assert noise.mean().abs() < 0.1
    assert noise.std() == pytest.approx(5.01, abs=0.06)
    assert torch.corrcoef(noise.flatten(1)).fill_diagonal_(0).abs().max() < 0.03
    assert noise.abs().ge(10).float().mean() == pytest.approx(0.0574, abs=0.004)  # 9.5 or more before rounding


def test_noise_is_clipped_at_both_ends() -> None:
    black, white = add_noise(fill(0), torch.tensor([0])), add_noise(fill(255), torch.tensor([0]))
    assert black.max() < 40
    assert white.min() > 215
    # Below half a level: Phi(0.1) = 0.54.
    assert black.eq(0).float().mean() == pytest.approx(0.54, abs=0.01)
    assert white.eq(255).float().mean() == pytest.approx(0.54, abs=0.01)


def test_published_noise_is_grey_cut_above_and_wraps_below() -> None:
    grey = add_published_noise(fill(128), torch.tensor([0]))
    assert torch.equal(grey[:, 0], grey[:, 1])
    assert torch.equal(grey[:, 0], grey[:, 2])
    assert (grey.float() - 128).std() == pytest.approx(5.01, abs=0.1)
    assert (grey.float() - 128).mean() == pytest.approx(-0.5, abs=0.1)  # the cast cuts off
    assert add_published_noise(fill(255), torch.tensor([0])).min() > 215
    black = add_published_noise(fill(0), torch.tensor([0])).float()
    # A sum of -1 or less wraps: Phi(-1 / 5) = 0.42. From -1 to 1 the cast gives 0: 0.16.
    assert black.gt(215).float().mean() == pytest.approx(0.42, abs=0.01)
    assert black.eq(0).float().mean() == pytest.approx(0.16, abs=0.01)
    assert not black.gt(40).logical_and(black.lt(215)).any()


def test_published_noise_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = torch.tensor([[0.0, -0.5, -1.0, -1.5, 1.5, 60.0]]) / 5
    monkeypatch.setattr(torch, "randn", lambda *_, **__: noise)
    image = torch.tensor([0, 0, 0, 0, 3, 254], dtype=torch.uint8).expand(1, 3, 1, 6)
    assert add_published_noise(image, torch.tensor([0]))[0, 1].tolist() == [[0, 0, 255, 255, 4, 255]]


class Grey(nn.Module):
    """Class 0, 1 or 2 by brightness 0, 100 or 200 at the corner; the concat always says 0."""

    def forward(self, images: Tensor) -> Logits:
        level = images[:, 0, 0, 0] * IMAGENET_STD[0] + IMAGENET_MEAN[0]
        right = F.one_hot((level / 100).round().long().clamp(0, 2), 3).float()
        return Logits((right, right), F.one_hot(torch.zeros(len(images), dtype=torch.int64), 3).float())


def make_split() -> DeviceStore:
    """Six images with a border that the central crop takes away."""
    labels = torch.arange(6) % 3
    images = torch.full((6, 3, 36, 36), 77, dtype=torch.uint8)
    images[:, :, 2:34, 2:34] = (labels * 100).byte()[:, None, None, None]
    return DeviceStore(images, labels, torch.device("cpu"))


def test_corruption_sees_crops_and_their_numbers() -> None:
    split = make_split()
    seen: list[tuple[Tensor, Tensor]] = []

    def watch(images: Tensor, index: Tensor) -> Tensor:
        seen.append((images.clone(), index.clone()))
        return images

    found = evaluate(Grey(), split, RECIPE, make_session(), corrupt=watch)
    assert torch.equal(torch.cat([images for images, _ in seen]), split.images[:, :, 2:34, 2:34])
    assert [index.tolist() for _, index in seen] == [[0, 1, 2, 3], [4, 5]]
    clean = evaluate(Grey(), split, RECIPE, make_session())
    assert (found.mix, found.concat, found.stages) == (clean.mix, clean.concat, clean.stages)
    assert torch.equal(found.mix_predictions, clean.mix_predictions)
    assert clean.mix == 100


def darken(images: Tensor, index: Tensor, *, seed: int) -> Tensor:
    """Images of even numbers become black."""
    assert seed == 7
    return images * (index % 2).byte()[:, None, None, None]


def test_changes_are_against_clean_accuracy() -> None:
    found = measure_robustness(Grey(), make_split(), RECIPE, make_session(), corruptions={"dark": darken}, seed=7)
    # Images 0 to 5 of classes 0 1 2 0 1 2: black ones are found only if they are 0, so 2 and 4 are lost.
    assert (found.clean.mix, found.corrupted["dark"].mix) == pytest.approx((100, 400 / 6))
    assert found.change("dark") == pytest.approx(-200 / 6)
    assert found.change("dark", "concat") == 0


def test_batches_do_not_matter() -> None:
    split = DeviceStore(draw_images(6, side=36), torch.arange(6) % 3, torch.device("cpu"))

    def catch(batch_size: int) -> Tensor:
        seen: list[Tensor] = []

        def watch(images: Tensor, index: Tensor) -> Tensor:
            seen.append(add_noise(images, index))
            return seen[-1]

        evaluate(Grey(), split, replace(RECIPE, batch_size=batch_size), make_session(), corrupt=watch)
        return torch.cat(seen)

    assert torch.equal(catch(4), catch(5))


def test_a_drop_is_computed_and_never_typed() -> None:
    empty = torch.zeros(0, dtype=torch.int64)

    def say(mix: float) -> Evaluation:
        return Evaluation(mix - 1, mix, (), empty, empty)

    assert Robustness(say(87.0), {"noise": say(78.6)}).change("noise") == pytest.approx(-8.4)


def test_names_are_those_of_table_7() -> None:
    rows = set(paper.TABLES[7].rows)
    assert rows - set(CORRUPTIONS) == {"clean"}
    assert set(CORRUPTIONS) - rows == {"published_noise"}


@pytest.mark.parametrize(
    ("corrupt", "images", "index", "arguments", "error", "message"),
    [
        (add_noise, torch.zeros(1, 3, 2, 2), [0], {}, TypeError, "add_noise: takes uint8 .* got torch.float32"),
        (jitter_colors, fill(0)[:, :1], [0], {}, ValueError, r"needs images \[B, 3, h, w\] .* got \[1, 1, 200, 200\]"),
        (add_published_noise, fill(0), [0, 1], {}, ValueError, r"their B numbers, got .* and \[2\]"),
        (jitter_colors, fill(0), [0], {"strength": 1.5}, ValueError, r"strength must lie in 0..1, got 1.5"),
        (add_noise, fill(0), [0], {"sigma": -1.0}, ValueError, "sigma must be 0 grey levels or more, got -1.0"),
        (add_published_noise, fill(0), [0], {"sigma": float("nan")}, ValueError, "sigma must be .* got nan"),
    ],
)
def test_what_does_not_fit_is_refused(
    corrupt: Callable[..., Tensor],
    images: Tensor,
    index: list[int],
    arguments: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        corrupt(images, torch.tensor(index), **arguments)
