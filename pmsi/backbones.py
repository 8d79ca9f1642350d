"""Backbones as five resolution levels, and where their weights come from."""

from __future__ import annotations

import itertools
import urllib.error
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torchvision.models import MobileNet_V2_Weights, mobilenet_v2

from pmsi.files import load_tensors

# Where MobileNetV2's `features` are cut: a stage ends with the last block before the next one of stride 2. The paper
# says "increase in channels", its code cuts here (32 -> 24 channels is no increase).
_MOBILENET_V2_CUTS = (0, 1, 4, 7, 14, 19)


class Backbone(nn.Module):
    """Feature maps of the deepest ``count`` of five stages, shallow to deep.

    Args:
        stages: five modules, each fed with the one before; ``widths`` are their output channels.
    """

    def __init__(self, stages: list[nn.Module], widths: tuple[int, ...]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.widths = widths

    def forward(self, images: Tensor, count: int = 1) -> list[Tensor]:
        maps = []
        for stage in self.stages:
            images = stage(images)
            maps.append(images)
        return maps[-count:]


def make_mobilenet_v2(weights: str = "none", *, stem_stride: Literal[1, 2] = 2) -> Backbone:
    """MobileNetV2 1.0 without its classifier; at 448 px the stages give 32x224, 24x112, 32x56, 96x28, 1280x14.

    Args:
        weights: a file of torchvision's tensors, "imagenet" (downloaded by torchvision) or "none" (random).
        stem_stride: 2 as in torchvision; 1 doubles all maps, as the published code does by a line left in.

    Raises:
        FileNotFoundError: no such file. ValueError: the file's tensors do not fit. ConnectionError: no download.
    """
    model = mobilenet_v2()
    if weights != "none":
        state = _download(MobileNet_V2_Weights.IMAGENET1K_V1.url) if weights == "imagenet" else _read(Path(weights))
        _load(model.features, state, weights)
    model.features[0][0].stride = (stem_stride, stem_stride)
    pairs = itertools.pairwise(_MOBILENET_V2_CUTS)
    return Backbone([model.features[start:end] for start, end in pairs], (32, 24, 32, 96, 1280))


def _read(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"weights: no file {path}; give a file, 'imagenet' or 'none'")
    state = load_tensors(path)
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"weights: {path} must hold a flat state dict of tensors with torchvision's names")
    return state


def _download(url: str) -> Mapping[str, Tensor]:
    try:
        state: Mapping[str, Tensor] = torch.hub.load_state_dict_from_url(url, check_hash=True, weights_only=True)
    except (urllib.error.URLError, RuntimeError) as error:  # RuntimeError: the hash of what came is another
        raise ConnectionError(
            f"weights: could not download {url} ({error}); give a file with --weights FILE, or 'none'"
        ) from error
    return state


def _load(features: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    wanted = features.state_dict()
    given = {name.removeprefix("features."): value for name, value in state.items() if name.startswith("features.")}
    missing = sorted(wanted.keys() - given.keys())
    if missing:
        raise ValueError(
            f"weights: {source} lacks {len(missing)} of {len(wanted)} tensors, the first features.{missing[0]}"
        )
    for name, value in wanted.items():
        if given[name].shape != value.shape:
            raise ValueError(
                f"weights: features.{name} must be {list(value.shape)}, {source} has {list(given[name].shape)}"
            )
    features.load_state_dict({name: given[name] for name in wanted})
