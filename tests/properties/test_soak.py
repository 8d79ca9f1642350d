"""The search itself: faults that are planted in the package are found, reduced, kept and tried again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mosaicaug import sampling
from mosaicaug.backends.resample import bilinear_taps
from mosaicaug.rectangles import Regions
from mosaicaug.settings import Setting
from tests.helpers.dense_oracle import trace_sources
from tests.helpers.oracle import blend_pixels, number_pixels
from tests.properties import large, registry, soak
from tests.properties.cases import Case
from tests.properties.registry import MACHINE, PROPERTIES

draw_uniforms = sampling._uniforms


def test_the_dense_oracle_is_the_slow_one() -> None:
    for seed, tiles_kind in enumerate(("own", "blocks", "any", "batch")):
        case = Case(
            seed=seed, batch=4, height=7, width=9, grid=3, tiles=tiles_kind, overlay="mixed", blend="mixed", stored=3,
            room=2, flips=True,
        )  # fmt: skip
        fields, images = case.make_fields(), number_pixels((3, 1, 9, 11))
        window, index = torch.tensor([[0, 0, 1], [2, 1, 0], [1, 2, 1], [0, 1, 0]]), torch.tensor([2, 0, 2, 1])
        want = blend_pixels(images, fields, window=window.tolist(), index=index.tolist())
        got = trace_sources(fields).look_through(window, index, 9).blend(images)
        assert (got - want).abs().max() <= 1e-12 * want.abs().max()


def keep_first(setting: Setting[Any], instance: Any, value: Any) -> None:
    """A setting that no longer changes once it is set."""
    instance.__dict__.setdefault(setting.stored, value)


@pytest.mark.parametrize(
    ("name", "target", "fault"),
    [
        ("pixels", "backends.cpu.tiles.TiledBase._copy_margin", lambda *_: None),
        ("pixels", "backends.cpu.tiles.View.is_mirrored", lambda *_: None),
        ("pixels", "backends.cpu.overlays._round", lambda values, _: values),
        ("many plans", "backends.reference.bilinear_taps", lambda *taps: bilinear_taps(taps[0] + 1, *taps[1:])),
        ("labels", "targets.overlay_share", lambda plan: plan.has_overlay.float()),
        ("masks", "backends.cpu.overlays.nearest_tap", lambda near, *_: near),
        ("boxes", "annotations._shrink", lambda near, far, _: (near, far)),
        ("keypoints", "rectangles.Regions.move_centres", Regions.move),
        ("algebra", "plan.Plan.invert", lambda plan: plan),
        ("refusals", "plan.Plan._check_values", lambda *_: None),
        ("augmentations", "sampling._uniforms", lambda *words, **named: draw_uniforms(*words, **named).flip(0)),
        (MACHINE, "settings.Setting.__set__", keep_first),
    ],
)
def test_planted_faults_are_found(
    name: str, target: str, fault: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"mosaicaug.{target}", fault)
    if target.startswith("backends.cpu."):  # torch's operations, which the compiled kernel does without
        monkeypatch.setattr("mosaicaug.backends.cpu.compiled.load", lambda: None)
    found = registry.search(name, 300, shrink=False)  # ends soon after the first
    assert any(failure.error.startswith("AssertionError") for failure in found)


def test_a_soak_keeps_the_smallest_failure_until_it_is_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(case: Case) -> None:
        assert case.batch < 5, "too many"

    planted = PROPERTIES["algebra"]._replace(check=check)
    monkeypatch.setitem(PROPERTIES, "algebra", planted)
    monkeypatch.setattr(soak, "SHARES", {"algebra": 1.0})
    failures, out = tmp_path / "failures", tmp_path / "soak.json"
    words = ["--minutes=0.001", "--seed=1", "--jobs=1", "--no-large", f"--out={out}", f"--failures={failures}"]
    assert soak.main(words) == 1
    [kept], report = failures.iterdir(), json.loads(out.read_text(encoding="utf-8"))
    assert report["failures"] == [json.loads(kept.read_text(encoding="utf-8"))]
    assert report["failures"][0]["case"]["batch"] == 5
    assert report["cases"]["algebra"] >= 5
    with pytest.raises(AssertionError, match="too many"):
        registry.replay(kept)
    monkeypatch.undo()
    registry.replay(kept)


def test_steps_of_a_machine_are_kept_and_replayed(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Setting, "__set__", keep_first)
        failure = registry.search(MACHINE, 20, shrink=False)[0]
        path = registry.keep(failure, tmp_path)
        with pytest.raises(AssertionError):
            registry.replay(path)
    registry.replay(path)
    assert failure.case[0][0] == "start"


def test_a_size_that_fails_is_a_row_of_the_results(capsys: pytest.CaptureFixture[str]) -> None:
    def check() -> None:
        assert not large.list_filled(), "as planted"

    row = large.try_size("planted", [3, 4], 2, check)
    assert (row["elements"], row["status"]) == (12, "AssertionError: as planted")
    assert "as planted" in capsys.readouterr().out
    report = soak.summarise([], [row], minutes=0.0, seed=0)
    assert report["failures"] == [row]
    assert report["largest"] == {"elements": 12, "batch": 2}
