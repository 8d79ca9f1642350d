"""Pictures that runs keep for their page: first inputs, activation maps, and where their peaks lie."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from pmsi.data.preprocess import IMAGENET_MEAN, IMAGENET_STD
from pmsi.evaluation.gradcam import grad_cam
from pmsi.experiments.pictures import (
    keep_activations,
    keep_preview,
    make_preview,
    measure_pointing,
    read_activations,
    read_pointing,
    read_preview,
)
from pmsi.experiments.source import Source
from pmsi.models.registry import make_network
from pmsi.recipe import METHODS, Method
from tests.helpers.dataset_files import CLASSES, write_cub, write_lines
from tests.helpers.small_run import (
    BATCHES,
    RECIPE,
    Watch,
    catch_inputs,
    make_dataset,
    make_fabric,
    make_trainer,
)

pytestmark = pytest.mark.usefixtures("small_backbone")


@pytest.mark.parametrize("scope", ["iteration", "phase", "progressive"])
@pytest.mark.parametrize("method", METHODS)
def test_previews_show_what_the_network_saw(tmp_path: Path, method: Method, scope: Any) -> None:
    """A level is 0.02 standard deviations at most; the preview is rounded to levels."""
    recipe = replace(RECIPE, augmentation=method, mix_scope=scope, mixup_p=1.0, epochs=1)
    trainer = make_trainer(tmp_path, recipe, seed=5)
    seen = catch_inputs(trainer.network)
    trainer.run(Watch())
    assert len(seen) == 4 * BATCHES + 2  # and two batches of the test
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    preview = make_preview(make_dataset(), recipe, 5)
    for shown, given in zip(preview.images, seen, strict=False):
        assert (shown - (given * std + mean)).abs().max() <= 0.501
    alike = all(torch.equal(seen[0], given) for given in seen[:4])
    assert len(preview.images) == len(preview.captions) == (1 if alike else 4)


def test_previews_of_balanced_batches_hold_so_many_classes() -> None:
    recipe = replace(RECIPE, augmentation="none", classes_per_batch=2)
    dataset = make_dataset()
    shown = make_preview(dataset, recipe, 0).images[0]
    stored = dataset.train.images.flatten(2).float()
    assert shown.shape == (4, 3, 32, 32)
    assert stored.shape[0] == 12


def test_a_preview_is_kept_once(tmp_path: Path) -> None:
    assert read_preview(tmp_path) is None
    keep_preview(tmp_path, make_dataset(), RECIPE, 0)
    found, made = read_preview(tmp_path), make_preview(make_dataset(), RECIPE, 0)
    assert found is not None
    assert torch.equal(found.images, made.images)
    assert found.captions == made.captions == tuple(f"phase {k + 1}: r = {3 - k}" for k in range(4))
    keep_preview(tmp_path, make_dataset(), RECIPE, 1)
    again = read_preview(tmp_path)
    assert again is not None
    assert torch.equal(again.images, found.images)


def test_activations_are_those_of_grad_cam(tmp_path: Path) -> None:
    dataset, network = make_dataset(), make_network(RECIPE, 3).eval()
    assert read_activations(tmp_path) is None
    keep_activations(tmp_path, network, dataset, RECIPE, Source(), make_fabric())
    found = read_activations(tmp_path)
    assert found is not None
    assert torch.equal(found.images, dataset.test.images[:3, :, 2:34, 2:34])  # of the three classes
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    wanted = grad_cam(network, (found.images - mean) / std)
    assert found.names == ("stage N-2", "stage N-1", "stage N")
    for one, other in zip(found.maps, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=0)
    assert read_pointing(tmp_path) is None  # these images have no annotations


def test_peaks_of_maps_are_scored_by_the_boxes_and_parts_of_the_test_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """White patches on black, each of another image in another corner; a map that is the input peaks there."""
    root = write_cub(tmp_path / "birds")
    corners = ((2, 2), (22, 2), (22, 22))  # x, y of the patches on the three test images, ids 2, 5 and 8
    for name, corner in zip(CLASSES, corners, strict=True):
        picture = Image.new("RGB", (36, 36))
        picture.paste((255, 255, 255), (*corner, corner[0] + 8, corner[1] + 8))
        picture.save(root / "images" / name / "1.png")
    places = dict(zip((2, 5, 8), corners, strict=True))
    at = [places.get(image, (14, 14)) for image in range(1, 10)]
    write_lines(root / "bounding_boxes.txt", *(f"{i} {x}.0 {y}.0 12.0 12.0" for i, (x, y) in enumerate(at, 1)))
    write_lines(root / "parts" / "part_locs.txt", *(f"{i} 1 {x + 4}.0 {y + 4}.0 1" for i, (x, y) in enumerate(at, 1)))
    monkeypatch.setattr("pmsi.experiments.pictures.grad_cam", lambda _, inputs: [inputs.mean(1)])
    monkeypatch.setattr("pmsi.experiments.pictures._BATCH", 2)  # the three images in two batches

    source = Source(data="cub", root=root, cache=None)
    dataset = source.load(RECIPE)
    pointing = measure_pointing(torch.nn.Identity(), dataset, RECIPE, source, make_fabric())
    # The centre of the crop is 17, 14.4 and 11.3 px from the parts; up to 15 px hit.
    assert pointing is not None
    assert pointing["images"] == 3
    assert pointing["points"] == {
        "peak of stage N": [100, 100],
        "centre of the image": [0, pytest.approx(200 / 3)],
    }
    assert measure_pointing(torch.nn.Identity(), make_dataset(), RECIPE, source, make_fabric()) is None
