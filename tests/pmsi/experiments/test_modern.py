"""What the paper does not train with: smoothed labels, averaged weights, mosaics of some images, tests on whole images,
and settings chosen on images held out of the training images."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mosaicaug import cross_entropy
from pmsi.data.dataset import load_dataset as load_data
from pmsi.data.layouts import list_images
from pmsi.data.storage import make_store
from pmsi.evaluation.accuracy import evaluate
from pmsi.experiments.tables import CANDIDATES, rival_recipe, table_recipes
from pmsi.models.registry import RIVALS, make_network, read_network
from pmsi.recipe import MODERN, RECIPES
from pmsi.report.page import list_parts
from pmsi.runtime.checkpoints import load_checkpoint
from pmsi.runtime.seeding import make_generator
from pmsi.training.optim import MovingAverage
from pmsi.training.phases import draw_phases
from tests.helpers.dataset_files import CLASSES, write_cub
from tests.helpers.small_run import (
    BATCHES,
    RECIPE,
    Watch,
    catch_inputs,
    make_backbone,
    make_dataset,
    make_session,
    make_trainer,
    name_differences,
)
from tests.pmsi.experiments.test_study import SHORT, Silent, ask, load


def test_the_average_is_that_of_its_definition() -> None:
    """Weights in double precision, and running statistics; a counter is copied. Bound: fp32 rounding of 30 steps."""
    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    average = MovingAverage(network, 0.7)
    expected = {name: value.double().clone() for name, value in network.state_dict().items()}
    for step in range(1, 31):
        network(torch.randn(5, 2)).sum().backward()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn(parameter.shape))
        leave = min(0.7, (1 + step) / (10 + step))
        for name, value in network.state_dict().items():
            expected[name] = leave * expected[name] + (1 - leave) * value.double()
        average.update(network, step=step)
    found = average.network.state_dict()
    for name, value in expected.items():
        wanted = torch.tensor(30.0).double() if name == "1.num_batches_tracked" else value
        torch.testing.assert_close(found[name].double(), wanted, rtol=1e-5, atol=1e-5)
    assert not any(parameter.requires_grad for parameter in average.network.parameters())


@pytest.mark.usefixtures("small_backbone")
def test_the_average_is_tested_and_the_weights_are_trained_as_ever(tmp_path: Path) -> None:
    plain = make_trainer(tmp_path / "plain")
    plain.run(Watch())
    recipe = replace(RECIPE, ema_decay=0.9)
    averaged = make_trainer(tmp_path / "averaged", recipe)
    states = []

    class Copy(Watch):
        def on_batch(self, *what: Any) -> None:
            super().on_batch(*what)
            states.append({name: value.clone() for name, value in averaged.network.state_dict().items()})

    initial = {name: value.clone() for name, value in averaged.network.state_dict().items()}
    found = averaged.run(Copy())
    assert not name_differences(plain.network.state_dict(), averaged.network.state_dict())
    oracle = MovingAverage(make_network(recipe, 3), 0.9)
    oracle.network.load_state_dict(initial)
    for step, state in enumerate(states, 1):
        now = make_network(recipe, 3)
        now.load_state_dict(state)
        oracle.update(now, step=step)
    assert len(states) == 2 * BATCHES
    assert not name_differences(oracle.network.state_dict(), averaged.tested.state_dict())
    store = make_store(make_dataset().test, torch.device("cpu"))
    checkpoint = load_checkpoint(tmp_path / "averaged" / "last.ckpt")
    again = evaluate(read_network(checkpoint, recipe, 3), store, recipe, make_session())
    assert again.mix_predictions.tolist() == found.mix_predictions.tolist()
    assert name_differences(read_network(checkpoint, recipe, 3).state_dict(), averaged.network.state_dict())


@pytest.mark.usefixtures("small_backbone")
def test_an_averaged_run_goes_on_where_it_was(tmp_path: Path) -> None:
    recipe = replace(RECIPE, ema_decay=0.9, label_smoothing=0.1)
    make_trainer(tmp_path / "whole", recipe).run(Watch())
    with pytest.raises(KeyboardInterrupt):
        make_trainer(tmp_path / "parts", recipe).run(Watch((2, 2)))
    make_trainer(tmp_path / "parts", recipe).run(Watch())
    whole, parts = (load_checkpoint(tmp_path / name / "last.ckpt") for name in ("whole", "parts"))
    assert "average" in whole
    assert name_differences(whole, parts) == []


@pytest.mark.usefixtures("small_backbone")
@pytest.mark.parametrize("name", ["pmsi", "baseline", "pmg"])
def test_labels_are_smoothed_in_the_loss(name: Any) -> None:
    """By hand: 1 - s of the label's, and s of the mean over classes."""
    change: dict[str, Any] = {"network": name, "interaction": name == "pmsi", "progressive": name != "baseline"}
    recipe = replace(RECIPE, label_smoothing=0.2, augmentation="none", **change)
    network = make_network(recipe, 3).eval()
    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 2, 1, 1])
    for output in [0, None] if name != "baseline" else [None]:
        logs = network(images).pick(output).log_softmax(1)
        wanted = -(0.8 * logs[range(4), labels] + 0.2 * logs.mean(1)).mean()
        torch.testing.assert_close(network.loss(images, labels, output), wanted)
        assert not torch.allclose(wanted, cross_entropy(network(images).pick(output), labels))


@pytest.mark.parametrize("name", ["pc", "api"])
def test_losses_of_comparisons_are_not_smoothed(name: Any) -> None:
    smoothed = replace(RECIPES["modern"], label_smoothing=0.1)
    recipe = rival_recipe(name, smoothed)
    assert recipe.label_smoothing == 0
    with pytest.raises(ValueError, match=f"recipe: network {name} has a loss of its own, so it needs label_smoothing="):
        replace(recipe, label_smoothing=0.1)
    assert {rival_recipe(rival, smoothed).network for rival in RIVALS} == {*RIVALS}  # type: ignore[arg-type]


@pytest.mark.parametrize("augmentation", ["rmg", "jigsaw"])
@pytest.mark.parametrize("chain", ["independent", "shared"])
def test_some_images_stay_whole(augmentation: Any, chain: Any) -> None:
    """Of 4,000 images a quarter, within four standard deviations (2.8 points), in each phase."""
    recipe = replace(RECIPE, augmentation=augmentation, chain=chain, per="sample", mosaic_p=0.75, permutation="cyclic")
    draws = draw_phases(recipe, (4000, 3, 32, 32), make_generator(0))
    whole = [(draw.plan.tiles == draw.plan.home).all(1) for draw in draws]
    assert whole[-1].all()
    for one in whole[:-1]:
        assert 1000 - 110 < one.sum() < 1000 + 110


def test_tests_may_see_whole_images() -> None:
    recipe = replace(RECIPE, test_whole=True)
    assert (RECIPE.test_side, recipe.test_side) == (32, 36)
    network = RIVALS["baseline"](make_backbone(), 3)
    seen = catch_inputs(network)
    store = make_store(make_dataset().test, torch.device("cpu"))
    evaluate(network, store, RECIPE, make_session())
    evaluate(network, store, recipe, make_session())
    inside, whole = seen[0], seen[len(seen) // 2]
    assert whole.shape[2:] == (36, 36)
    assert torch.equal(inside, whole[:, :, 2:34, 2:34])


def test_images_are_held_out_of_the_training_images(tmp_path: Path) -> None:
    root = write_cub(tmp_path)
    real = list_images("cub", root)
    held = list_images("cub", root, 2)
    assert [path.name for path, _ in real.train] == ["0.png", "2.png"] * 3
    assert [(path.name, label) for path, label in held.train] == [("0.png", label) for label in range(3)]
    assert [(path.name, label) for path, label in held.test] == [("2.png", label) for label in range(3)]
    assert not {*held.test} & {*real.test}
    how: dict[str, Any] = {"resize": 8, "hold_out": 2}
    for stream in (False, True):
        dataset = load_data("cub", root, stream=stream, **how)
        assert (len(dataset.train.labels), dataset.test.labels.tolist()) == (3, [0, 1, 2])
        assert dataset.classes == CLASSES
        assert "tested on training images 2, 4, ... of each class, and on none of its test images" in dataset.protocol
    for every, message in ((1, "hold_out must be 2 or more"), (3, "no test images")):
        with pytest.raises(ValueError, match=message):
            load_data("cub", root, resize=8, hold_out=every)


def test_both_splits_are_kept_in_the_cache(tmp_path: Path) -> None:
    root = write_cub(tmp_path / "birds")
    said: list[str] = []
    for every in (None, 2, None, 2):
        load_data("cub", root, resize=8, hold_out=every, cache=tmp_path / "kept", say=said.append)
    assert len(said) == len(list((tmp_path / "kept").iterdir())) == 4


def test_the_first_training_images_of_each_class_alone(tmp_path: Path) -> None:
    root = write_cub(tmp_path / "birds")
    real, few = list_images("cub", root), list_images("cub", root, train_per_class=1)
    assert [(path.name, label) for path, label in few.train] == [("0.png", label) for label in range(3)]
    assert few.test == real.test
    how: dict[str, Any] = {"resize": 8, "cache": tmp_path / "kept", "say": lambda _: None}
    whole, part = (load_data("cub", root, train_per_class=count, **how) for count in (None, 1))
    assert torch.equal(part.train.images, whole.train.images[::2])
    assert "trained on the first 1 training images of each class" in part.protocol
    for count, message in (
        (0, "must be 1 or more, got 0"),
        (3, "train_per_class is 3, but a class has only 2 training"),
    ):
        with pytest.raises(ValueError, match=message):
            load_data("cub", root, train_per_class=count, **how)
    faces = load_data("typefaces", None, resize=16, hold_out=5, train_per_class=3)
    assert torch.bincount(faces.train.labels).tolist() == [3] * len(faces.classes)


def test_typefaces_can_be_held_out_too() -> None:
    whole, part = (load_data("typefaces", None, resize=16, hold_out=every) for every in (None, 5))
    count = torch.bincount(whole.train.labels)
    assert torch.equal(torch.bincount(part.test.labels), count // 5)
    assert len(part.train.labels) + len(part.test.labels) == len(whole.train.labels)
    first = (whole.train.labels == 0).nonzero().flatten()
    assert torch.equal(part.test.images[part.test.labels == 0], whole.train.images[first[4::5]])


def test_candidates_change_one_thing_each_and_modern_what_was_kept() -> None:
    base = RECIPES["paper"]
    rows = table_recipes("candidates", base)
    first = rows["rmg"].to_dict()
    assert set(rows) == {"rmg", *CANDIDATES, "modern"}
    for row, recipe in rows.items():
        changed = {key: value for key, value in recipe.to_dict().items() if value != first[key]}
        assert changed == ({} if row == "rmg" else MODERN if row == "modern" else CANDIDATES[row]), row
    assert rows["modern"] == RECIPES["modern"]
    short = table_recipes("candidates", RECIPES["quick"])
    assert "one cycle" not in short  # it has it already
    assert table_recipes("modern", base) == {"rmg": rows["rmg"], "modern": rows["modern"]}
    network = {"stages", "interaction", "network", "backbone", "feature_width", "hidden_width"}
    assert not network & {*MODERN}  # the same network at inference


def test_candidates_are_never_chosen_on_test_images(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"candidates: settings must not be chosen on test images; .* --hold-out"):
        ask(tmp_path, "candidates", watch=lambda *_: Silent())
    assert not list(tmp_path.iterdir())


def test_modern_stands_beside_the_papers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pmsi.models.registry.make_backbone", lambda *_, **__: make_backbone())
    results = ask(tmp_path, "modern", watch=lambda *_: Silent())
    table, verdicts = list_parts(results, load(SHORT), SHORT, tmp_path)["modern"]
    assert [row[0] for row in table.rows] == ["rmg", "modern"]
    assert all(key in table.rows[1][1] for key in MODERN if getattr(SHORT, key) != MODERN[key])
    assert table.rows[1][3] == f"{results['tables']['modern']['modern'][0]['mix']:.1f}"
    assert [row[0] for row in verdicts.rows] == ["modern vs rmg"]
    assert math.isfinite(float(verdicts.rows[0][1]))
