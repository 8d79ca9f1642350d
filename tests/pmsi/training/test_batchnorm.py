"""Batch-norm in groups of images, whatever the number of processes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

from pmsi.recipe import Recipe
from pmsi.training.batchnorm import GhostBatchNorm, share_statistics
from tests.helpers.small_run import RECIPE, make_trainer


@pytest.mark.parametrize("shape", [(12, 5, 3, 4), (12, 5)])
def test_ghost_batch_norm_is_batch_norm_of_each_group(shape: tuple[int, ...]) -> None:
    x, groups = torch.randn(shape) * 3 + 1, 3
    norm = nn.BatchNorm2d(5, eps=0.1) if len(shape) == 4 else nn.BatchNorm1d(5, eps=0.1)
    nn.init.normal_(norm.weight)
    ghost = GhostBatchNorm(norm, groups)
    parts = [F.batch_norm(part, None, None, norm.weight, norm.bias, training=True, eps=0.1) for part in x.chunk(3)]
    torch.testing.assert_close(ghost(x), torch.cat(parts))
    alone = type(norm)(5)  # sees the first group alone
    alone(x[:4])
    torch.testing.assert_close(ghost.running_mean, alone.running_mean)
    torch.testing.assert_close(ghost.running_var, alone.running_var)
    assert ghost.num_batches_tracked == 1
    assert list(ghost.state_dict()) == list(norm.state_dict())
    wanted = F.batch_norm(x, alone.running_mean, alone.running_var, norm.weight, eps=0.1)
    torch.testing.assert_close(ghost.eval()(x), wanted)


def test_groups_that_do_not_fit() -> None:
    network = nn.Sequential(nn.BatchNorm1d(3))

    def share(images: int | None, processes: int) -> nn.Module:
        return share_statistics(network, Recipe(batch_size=12, batch_norm_images=images), processes, "cpu")

    assert share(None, 2) is network
    assert share(6, 2) is network
    assert not isinstance(network[0], GhostBatchNorm)
    share(3, 2)
    assert isinstance(network[0], GhostBatchNorm)
    assert network[0].groups == 2
    with pytest.raises(ValueError, match="groups of 4 images do not fill a process's 6"):
        share(4, 2)
    with pytest.raises(ValueError, match="4 images are no whole number of processes with 3"):
        share(4, 4)
    with pytest.raises(ValueError, match="6 images on 2 processes need synchronised statistics"):
        share(6, 4)


def test_processes_of_a_gpu_share_statistics_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve images on four processes: groups of six are two processes, groups of twelve all of them."""
    made: list[int] = []
    world = object()

    def group(size: int) -> tuple[str, list[str]]:
        made.append(size)
        return "two", []

    monkeypatch.setattr(dist, "new_subgroups", group)
    monkeypatch.setattr(dist, "group", SimpleNamespace(WORLD=world))
    for images, wanted in ((6, "two"), (12, world)):
        recipe = Recipe(batch_size=12, batch_norm_images=images)
        (norm,) = share_statistics(nn.Sequential(nn.BatchNorm1d(3)), recipe, 4, "cuda").children()
        assert isinstance(norm, nn.SyncBatchNorm)
        assert norm.process_group is wanted
    assert made == [2]


@pytest.mark.usefixtures("small_backbone")
def test_the_recipe_groups_batch_norm(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, replace(RECIPE, batch_norm_images=2))
    norms = [m for m in trainer.network.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert norms
    assert all(isinstance(norm, GhostBatchNorm) and norm.groups == 2 for norm in norms)
    assert {norm.momentum for norm in norms} == {0.01, RECIPE.batch_norm_momentum}
    with pytest.raises(ValueError, match="batch_size must be a multiple of batch_norm_images, got 4 and 3"):
        replace(RECIPE, batch_norm_images=3)
