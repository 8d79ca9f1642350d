"""The profile of a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pmsi.runtime.profiler import Profile
from tests.helpers.small_run import RECIPE, Watch, make_dataset, make_trainer

CPU = torch.device("cpu")


@pytest.mark.usefixtures("small_backbone")
def test_a_profile_says_where_the_time_goes(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, replace(RECIPE, batch_size=2, epochs=2), dataset=make_dataset(train_images=6))
    with Profile(tmp_path / "profile.json", CPU) as profile:
        trainer.run(Watch(), profile)
    table = profile.make_table()
    shown: list[list[Any]] = [list(column.cells) for column in table.columns]
    parts = dict(zip(shown[0], zip(*shown[1:], strict=True), strict=True))
    assert {"input", "forward", "backward", "update"} <= set(shown[0][:4])
    assert sum(float(parts[name][1]) for name in shown[0][:4]) == pytest.approx(100, abs=0.3)
    assert {name: parts[name][2] for name in ("forward", "backward", "update")} == dict.fromkeys(
        ("forward", "backward", "update"), "4"
    )
    assert any("conv" in name for name in shown[0][4:])
    assert "pmsi: forward" in (tmp_path / "profile.json").read_text()
