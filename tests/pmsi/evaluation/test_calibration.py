"""Temperature scaling: the right temperature is found, and never judged on the images that it was fitted to."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pmsi.evaluation.calibration import TEMPERATURES, cross_calibrate, fit_temperature, measure_calibration


def draw(count: int, temperature: float) -> tuple[Tensor, Tensor]:
    """Logits that are ``temperature`` times as large as the chances by which the labels were drawn say."""
    generator = torch.Generator().manual_seed(0)
    honest = 2 * torch.randn(count, 5, generator=generator)
    labels = torch.multinomial(honest.softmax(1), 1, generator=generator)[:, 0]
    return honest * temperature, labels


@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_the_temperature_of_the_draw_is_found(temperature: float) -> None:
    logits, labels = draw(4000, temperature)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.06)


def test_calibration_brings_confidence_to_accuracy() -> None:
    logits, labels = draw(2000, 4.0)
    hits = (logits.argmax(1) == labels).tolist()
    before = measure_calibration(logits.softmax(1).amax(1).tolist(), hits)
    after = measure_calibration(cross_calibrate(logits, labels).amax(1).tolist(), hits)
    assert before.error > 15
    assert after.error < 3
    assert sum(one.images for one in after.bins) == 2000


def test_an_image_does_not_calibrate_itself() -> None:
    logits, labels = draw(40, 1.0)
    changed = labels.clone()
    changed[::2] = (labels[::2] + 1) % 5  # of even rows, so odd rows alone may change
    before, after = cross_calibrate(logits, labels), cross_calibrate(logits, changed)
    assert torch.equal(before[::2], after[::2])
    assert not torch.equal(before[1::2], after[1::2])


def test_edges() -> None:
    sure = torch.eye(3)
    assert fit_temperature(sure, torch.arange(3)) == pytest.approx(TEMPERATURES[0], rel=1e-3)
    assert torch.equal(cross_calibrate(sure[:1], torch.tensor([0])), sure[:1].double().softmax(1))
    for logits, labels in ((sure, torch.arange(2)), (sure[:0], torch.arange(0))):
        with pytest.raises(ValueError, match=r"needs logits \[N, K\] and labels"):
            fit_temperature(logits, labels)
    with pytest.raises(ValueError, match="2 confidences of 1 answers"):
        measure_calibration([0.5, 0.5], [True])
