"""Backbones as five resolution levels, with weights from files or downloads."""

from __future__ import annotations

import copy
import itertools
import urllib.error
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchvision.models import MobileNet_V2_Weights, get_model, get_model_weights, mobilenet_v2

from pmsi.recipe import WIDTH_MULTS
from pmsi.runtime.checkpoints import check_finite, load_tensors
from pmsi.runtime.files import expand_home

# Where MobileNetV2's `features` are cut: a stage ends with the last block before the next one of stride 2. The paper
# says "increase in channels", its code cuts here (32 -> 24 channels is no increase).
_MOBILENET_V2_CUTS = (0, 1, 4, 7, 14, 19)
_RESNET_WIDTHS = {
    "resnet18": (64, 64, 128, 256, 512),
    "resnet34": (64, 64, 128, 256, 512),
    "resnet50": (64, 256, 512, 1024, 2048),
}
_NAMES = f"mobilenet_v2, {', '.join(_RESNET_WIDTHS)} or timm:NAME"


class Backbone(nn.Module):
    """Feature maps of the deepest ``count`` of five stages, shallow to deep; the last ``left_out`` of them do not run.

    Args:
        stages: five modules, each fed with the one before; ``widths`` are their output channels.
    """

    def __init__(self, stages: list[nn.Module], widths: tuple[int, ...]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.widths = widths

    def forward(self, images: Tensor, count: int = 1, left_out: int = 0) -> list[Tensor]:
        maps = []
        for stage in itertools.islice(self.stages, len(self.widths) - left_out):
            images = stage(images)
            maps.append(images)
        return maps[len(self.widths) - count :]

    def list_blocks(self) -> list[list[nn.Module]]:
        """List the blocks of each stage, for networks that use maps from within a stage."""
        return [list(stage) if isinstance(stage, nn.Sequential) else [stage] for stage in self.stages]

    def forward_blocks(self, images: Tensor) -> list[list[Tensor]]:
        """Output maps of those blocks, stage by stage."""
        maps: list[list[Tensor]] = []
        for stage in self.list_blocks():
            maps.append([])
            for block in stage:
                images = block(images)
                maps[-1].append(images)
        return maps

    def measure_blocks(self) -> list[list[int]]:
        """Measure the output channels of those blocks, without data."""
        maps = copy.deepcopy(self).to("meta").eval().forward_blocks(torch.empty(1, 3, 64, 64, device="meta"))
        return [[x.shape[1] for x in stage] for stage in maps]

    def cut(self, count: int) -> Backbone:
        """This backbone, layers shared, without the last ``count`` blocks of its last stage."""
        blocks, widths = self.list_blocks()[-1], self.measure_blocks()[-1]
        if not 0 <= count < len(blocks):
            raise ValueError(f"Backbone.cut: the last stage has {len(blocks)} blocks, so cut 0 or more but not {count}")
        kept = len(blocks) - count
        return Backbone([*self.stages[:-1], nn.Sequential(*blocks[:kept])], (*self.widths[:-1], widths[kept - 1]))


class TimmBackbone(Backbone):
    """The last five levels of a timm model made with ``features_only=True``; its blocks are not known."""

    def __init__(self, model: nn.Module, widths: tuple[int, ...]) -> None:
        super().__init__([], widths)
        self.model = model

    def forward(self, images: Tensor, count: int = 1, left_out: int = 0) -> list[Tensor]:
        maps = list(self.model(images))  # runs as a whole
        return maps[len(maps) - count : len(maps) - left_out]

    def list_blocks(self) -> list[list[nn.Module]]:
        raise ValueError("a timm backbone shows the maps of five levels, not the blocks between them; take another one")


def make_backbone(
    name: str, weights: str = "none", *, width_mult: float = 1.0, stem_stride: Literal[1, 2] = 2
) -> Backbone:
    """Make a backbone of five stages, without its classifier.

    Args:
        name: "mobilenet_v2", "resnet18", "resnet34" or "resnet50" (of torchvision), or "timm:NAME" for any timm model
            that has ``features_only=True`` and five resolution levels.
        weights: a file of torchvision's (timm's) tensors, "imagenet" (downloaded by torchvision or timm) or "none".
        width_mult, stem_stride: see `make_mobilenet_v2`; the others have none to choose.

    Raises:
        FileNotFoundError: no such file. ConnectionError: no download. ImportError: timm is missing.
        ValueError: no such name, fewer than five levels, the weights do not fit, or a setting is out of range or of
            MobileNetV2 alone.

    >>> backbone = make_backbone("resnet18")
    >>> backbone.widths, [tuple(x.shape[1:]) for x in backbone.eval()(torch.rand(1, 3, 64, 64), 3)]
    ((64, 64, 128, 256, 512), [(128, 8, 8), (256, 4, 4), (512, 2, 2)])
    """
    if name == "mobilenet_v2":
        return make_mobilenet_v2(weights, width_mult=width_mult, stem_stride=stem_stride)
    for setting, value, only in (("width_mult", width_mult, 1), ("stem_stride", stem_stride, 2)):
        if value != only:
            raise ValueError(f"make_backbone: {setting}={value} is for mobilenet_v2 alone, got {name}")
    if name in _RESNET_WIDTHS:
        return _make_resnet(name, weights)
    if name.startswith("timm:"):
        return _make_timm(name.removeprefix("timm:"), weights)
    raise ValueError(f"make_backbone: name must be {_NAMES}, got {name!r}")


def make_mobilenet_v2(weights: str = "none", *, width_mult: float = 1.0, stem_stride: Literal[1, 2] = 2) -> Backbone:
    """MobileNetV2 without its classifier; at 448 px the stages give 32x224, 24x112, 32x56, 96x28, 1280x14.

    Args:
        weights: a file of torchvision's tensors, "imagenet" (downloaded by torchvision) or "none" (random).
        width_mult: width multiplier, 0.35 to 1.4 (Sandler et al. 2018, section 6.1): channels are so many times as
            many, rounded to multiples of 8; the last 1280 become more above 1 and stay below it.
        stem_stride: 2 as in torchvision; 1 doubles all maps, as the published code does by a line left in.

    Raises:
        FileNotFoundError: no such file. ConnectionError: no download.
        ValueError: ``width_mult`` out of range; the file's tensors do not fit; or "imagenet" for another width than
            1.0, the only one that torchvision has weights for.

    >>> make_mobilenet_v2().widths, make_mobilenet_v2(width_mult=0.35).widths
    ((32, 24, 32, 96, 1280), (16, 8, 16, 32, 1280))
    """
    least, most = WIDTH_MULTS
    if not least <= width_mult <= most:
        raise ValueError(f"make_mobilenet_v2: width_mult must lie in {least}..{most}, got {width_mult}")
    if weights == "imagenet" and width_mult != 1:
        raise ValueError(
            f"weights: 'imagenet' has mobilenet_v2 with width_mult=1.0 alone, {width_mult} was asked for; give 'none', "
            "a file of that width, or width_mult=1.0"
        )
    model = mobilenet_v2(width_mult=width_mult)
    model.classifier = nn.Identity()
    if weights != "none":
        wanted = f"mobilenet_v2 with width_mult={width_mult}"
        if width_mult != 1:
            wanted += ", or set width_mult=1.0 if it is of that width"
        _load(wanted, model, _fetch(weights, MobileNet_V2_Weights.IMAGENET1K_V1.url), weights)
    model.features[0][0].stride = (stem_stride, stem_stride)
    stages = [model.features[start:end] for start, end in itertools.pairwise(_MOBILENET_V2_CUTS)]
    return Backbone(stages, tuple(stage[-1].out_channels for stage in stages))


def _make_resnet(name: str, weights: str) -> Backbone:
    """At 448 px the stages give maps of 112, 112, 56, 28 and 14 px: the stem takes the pooling in, as in PMG."""
    model = get_model(name)
    model.fc = nn.Identity()
    if weights != "none":
        _load(name, model, _fetch(weights, get_model_weights(name).IMAGENET1K_V1.url), weights)
    stem = nn.Sequential(model.conv1, model.bn1, model.relu, model.maxpool)
    return Backbone([stem, model.layer1, model.layer2, model.layer3, model.layer4], _RESNET_WIDTHS[name])


def _make_timm(name: str, weights: str) -> Backbone:
    try:
        import timm
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "timm":
            raise
        raise ImportError("timm:NAME needs timm, which is missing; pip install 'mosaicaug[timm]'") from error
    try:
        info: Any = timm.create_model(name, features_only=True).feature_info
    except (RuntimeError, AttributeError) as error:  # what timm says to an unknown name, or to one without features
        raise ValueError(f"make_backbone: timm has no model {name!r} with features_only=True ({error})") from error
    sides, channels = info.reduction(), info.channels()
    if len(set(sides)) < 5 or sides != sorted(set(sides)):
        levels = ", ".join(f"{width} channels at 1/{side}" for width, side in zip(channels, sides, strict=True))
        raise ValueError(f"make_backbone: timm:{name} must have five resolution levels or more, but has {levels}")
    deepest = tuple(range(len(sides) - 5, len(sides)))
    make = partial(timm.create_model, name, features_only=True, out_indices=deepest)
    if weights not in ("none", "imagenet"):
        state = _read(Path(weights))
        _load(name, timm.create_model(name, num_classes=0), state, weights)  # timm itself lets tensors be missing
        make = partial(make, pretrained_cfg_overlay={"state_dict": dict(state)})
    try:
        model = make(pretrained=weights != "none")
    except (OSError, RuntimeError) as error:
        raise ConnectionError(f"weights: timm has none for {name}, or could not download them ({error})") from error
    return TimmBackbone(model, tuple(channels[-5:]))


def _fetch(weights: str, url: str) -> Mapping[str, Tensor]:
    return _download(url) if weights == "imagenet" else _read(Path(weights))


def _read(path: Path) -> Mapping[str, Tensor]:
    path = expand_home(path)
    if not path.is_file():
        raise FileNotFoundError(f"weights: no file {path}; give a file, 'imagenet' or 'none'")
    state = load_tensors(path)
    if not isinstance(state, Mapping) or not all(_is_plain(value) for value in state.values()):
        raise ValueError(f"weights: {path} must hold a flat state dict of tensors with torchvision's names")
    check_finite(state, f"weights: {path}")
    return state


def _is_plain(value: Any) -> bool:
    """Test for a tensor of numbers that can be copied to a network."""
    return isinstance(value, Tensor) and value.layout == torch.strided and not (value.is_meta or value.is_quantized)


def _download(url: str) -> Mapping[str, Tensor]:
    try:
        state: Mapping[str, Tensor] = torch.hub.load_state_dict_from_url(url, check_hash=True, weights_only=True)
    except (urllib.error.URLError, RuntimeError) as error:  # RuntimeError: the hash of what came is another
        raise ConnectionError(
            f"weights: could not download {url} ({error}); give a file with --weights FILE, or 'none'"
        ) from error
    return state


def _load(name: str, model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Every tensor of ``model``, which has no classifier; what else ``state`` holds is left out."""
    wanted = model.state_dict()
    missing = sorted(wanted.keys() - state.keys())
    if missing:
        lack = f"lacks {len(missing)} of {len(wanted)} tensors, the first {missing[0]}"
        raise ValueError(f"weights: {source} {lack}; it must hold those of {name}")
    for key, value in wanted.items():
        if state[key].shape != value.shape:
            shapes = f"must be {list(value.shape)}, {source} has {list(state[key].shape)}"
            raise ValueError(f"weights: {key} {shapes}; give 'none', or a file of {name}")
    model.load_state_dict({key: state[key] for key in wanted})
