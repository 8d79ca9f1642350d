"""Fixtures that several test files share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from tiny import make_backbone


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Every device of this machine; the rest is reported as skipped."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    return torch.device(request.param)


@pytest.fixture
def poison() -> Iterator[None]:
    """Fresh memory is full of NaN (integers: of their maximum), so a pixel that nobody wrote is seen."""
    was_on, warned = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(mode=True)
    assert torch.empty(4).isnan().all()
    yield
    torch.use_deterministic_algorithms(mode=was_on, warn_only=warned)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def small_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trainer gets a backbone of milliseconds a step."""
    monkeypatch.setattr("pmsi.train.make_mobilenet_v2", make_backbone)
