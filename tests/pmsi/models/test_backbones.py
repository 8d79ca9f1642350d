"""Every backbone: five levels, their blocks, their weights, and names that are refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import nn
from torchvision.models import get_model

from pmsi.models.backbones import Backbone, make_backbone, make_mobilenet_v2
from tests.helpers.small_run import make_backbone as make_tiny

SMALL = "test_resnet"  # timm's own model for tests


def measure(backbone: Backbone, side: int = 64) -> list[tuple[int, int]]:
    """Channels and side of each of the five maps."""
    with torch.inference_mode():
        return [(x.shape[1], x.shape[3]) for x in backbone.eval()(torch.rand(1, 3, side, side), 5)]


@pytest.mark.parametrize(
    ("name", "maps", "parameters"),
    [
        ("mobilenet_v2", [(32, 32), (24, 16), (32, 8), (96, 4), (1280, 2)], 2_223_872),
        ("resnet18", [(64, 16), (64, 16), (128, 8), (256, 4), (512, 2)], 11_176_512),
        ("resnet34", [(64, 16), (64, 16), (128, 8), (256, 4), (512, 2)], 21_284_672),
        ("resnet50", [(64, 16), (256, 16), (512, 8), (1024, 4), (2048, 2)], 23_508_032),
    ],
)
def test_five_levels(name: str, maps: list[tuple[int, int]], parameters: int) -> None:
    backbone = make_backbone(name)
    assert measure(backbone) == maps
    assert backbone.widths == tuple(width for width, _ in maps)
    assert sum(parameter.numel() for parameter in backbone.parameters()) == parameters


def test_resnet_is_torchvisions(tmp_path: Path) -> None:
    """The weights of a file, and the same last map to the bit."""
    model = get_model("resnet18").eval()
    torch.save(model.state_dict(), tmp_path / "resnet18.pth")
    backbone = make_backbone("resnet18", str(tmp_path / "resnet18.pth")).eval()
    images = torch.rand(2, 3, 64, 64)
    [last] = backbone(images)
    assert torch.equal(model.fc(last.mean((2, 3))), model(images))


def test_resnet_refuses_another_file(tmp_path: Path) -> None:
    torch.save(get_model("resnet18").state_dict(), tmp_path / "resnet18.pth")
    with pytest.raises(ValueError, match=r"lacks \d+ of 216 tensors, the first layer1\.2\.bn1\.bias"):
        make_backbone("resnet34", str(tmp_path / "resnet18.pth"))


def test_stem_stride_is_for_mobilenet_v2() -> None:
    assert measure(make_backbone("mobilenet_v2", stem_stride=1))[0] == (32, 64)
    with pytest.raises(ValueError, match=r"stem_stride=1 is for mobilenet_v2 alone, got resnet18"):
        make_backbone("resnet18", stem_stride=1)


@pytest.mark.parametrize(
    ("width_mult", "widths"),  # by hand: so many times 32, 24, 32 and 96, in eights; 1280 or more
    [(0.35, (16, 8, 16, 32, 1280)), (0.5, (16, 16, 16, 48, 1280)), (1.4, (48, 32, 48, 136, 1792))],
)
def test_mobilenet_v2_of_other_widths(width_mult: float, widths: tuple[int, ...]) -> None:
    backbone = make_backbone("mobilenet_v2", width_mult=width_mult)
    assert backbone.widths == widths
    assert measure(backbone) == list(zip(widths, (32, 16, 8, 4, 2), strict=True))


def test_other_widths_are_torchvisions(tmp_path: Path) -> None:
    """The weights of a file, and the same logits to the bit."""
    model = get_model("mobilenet_v2", width_mult=0.35).eval()
    torch.save(model.state_dict(), tmp_path / "narrow.pth")
    backbone = make_mobilenet_v2(str(tmp_path / "narrow.pth"), width_mult=0.35).eval()
    images = torch.rand(2, 3, 64, 64)
    [last] = backbone(images)
    assert torch.equal(model.classifier(last.mean((2, 3))), model(images))


@pytest.mark.parametrize("width_mult", [0.3, 1.5, float("nan")])
def test_widths_out_of_range_are_refused(width_mult: float) -> None:
    with pytest.raises(ValueError, match=rf"width_mult must lie in 0\.35\.\.1\.4, got {width_mult}"):
        make_mobilenet_v2(width_mult=width_mult)


def test_width_is_for_mobilenet_v2() -> None:
    with pytest.raises(ValueError, match=r"width_mult=0\.5 is for mobilenet_v2 alone, got resnet18"):
        make_backbone("resnet18", width_mult=0.5)


@pytest.mark.parametrize("name", ["resnet101", "", "mobilenet", "timm"])
def test_unknown_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"must be mobilenet_v2, resnet18, .* or timm:NAME, got '{name}'"):
        make_backbone(name)


def test_blocks_are_the_stages_in_pieces() -> None:
    backbone = make_mobilenet_v2().eval()
    images = torch.rand(1, 3, 64, 64)
    maps = images
    for stage, whole in zip(backbone.list_blocks(), backbone(images, 5), strict=True):
        for block in stage:
            maps = block(maps)
        assert torch.equal(maps, whole)


def test_widths_of_blocks_cost_no_state() -> None:
    """The figures of torchvision's `features`; nothing is drawn and no statistic moves."""
    backbone = make_mobilenet_v2()
    state = {name: value.clone() for name, value in backbone.state_dict().items()}
    before = torch.get_rng_state()
    assert backbone.measure_blocks() == [
        [32],
        [16, 24, 24],
        [32, 32, 32],
        [64, 64, 64, 64, 96, 96, 96],
        [160, 160, 160, 320, 1280],
    ]
    assert torch.equal(torch.get_rng_state(), before)
    assert backbone.training
    assert all(torch.equal(value, state[name]) for name, value in backbone.state_dict().items())
    assert [len(stage) for stage in make_backbone("resnet34").measure_blocks()] == [4, 3, 4, 6, 3]


def test_cut() -> None:
    backbone = make_mobilenet_v2().eval()
    short = backbone.cut(1)
    assert short.widths == (32, 24, 32, 96, 320)
    images = torch.rand(1, 3, 64, 64)
    [last] = short(images)
    assert torch.equal(backbone.list_blocks()[-1][-1](last), backbone(images)[0])
    with pytest.raises(ValueError, match="last stage has 5 blocks, so cut 0 or more but not 5"):
        backbone.cut(5)


class TestTimm:
    @pytest.fixture(autouse=True)
    def _timm(self) -> None:
        pytest.importorskip("timm")

    def test_five_levels(self) -> None:
        backbone = make_backbone(f"timm:{SMALL}")
        assert measure(backbone) == [(32, 32), (32, 16), (48, 8), (192, 4), (96, 2)]
        assert backbone.widths == (32, 32, 48, 192, 96)

    def test_more_levels_than_five_give_the_deepest(self) -> None:
        assert measure(make_backbone("timm:vgg11"), side=32) == [(128, 16), (256, 8), (512, 4), (512, 2), (512, 1)]

    def test_fewer_levels_are_listed(self) -> None:
        message = r"timm:convnext_atto must have five resolution levels or more, but has 40 channels at 1/4, 80 chan"
        with pytest.raises(ValueError, match=message):
            make_backbone("timm:convnext_atto")

    def test_unknown_model(self) -> None:
        with pytest.raises(ValueError, match=r"timm has no model 'nothing' with features_only=True"):
            make_backbone("timm:nothing")

    def test_file(self, tmp_path: Path) -> None:
        import timm

        model: Any = timm.create_model(SMALL).eval()
        torch.save(model.state_dict(), tmp_path / "whole.pth")
        [last] = make_backbone(f"timm:{SMALL}", str(tmp_path / "whole.pth")).eval()(images := torch.rand(1, 3, 64, 64))
        assert torch.equal(last, model.forward_features(images))
        half = {name: value for name, value in model.state_dict().items() if not name.startswith("layer4")}
        torch.save(half, tmp_path / "half.pth")
        with pytest.raises(ValueError, match=r"half\.pth lacks \d+ of \d+ tensors, the first layer4\.0"):
            make_backbone(f"timm:{SMALL}", str(tmp_path / "half.pth"))

    def test_no_download(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import timm

        def fail(*_: object, pretrained: bool = False, **__: object) -> nn.Module:
            if pretrained:
                raise OSError("no route")
            return create(SMALL, features_only=True)

        create = timm.create_model
        monkeypatch.setattr(timm, "create_model", fail)
        with pytest.raises(ConnectionError, match=rf"timm has none for {SMALL}, or could not download them \(no route"):
            make_backbone(f"timm:{SMALL}", "imagenet")

    def test_blocks_are_not_told_apart(self) -> None:
        with pytest.raises(ValueError, match="maps of five levels, not the blocks between them"):
            make_backbone(f"timm:{SMALL}").measure_blocks()


def test_timm_is_imported_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    make_backbone("resnet18")
    with pytest.raises(ImportError, match=r"timm:NAME needs timm, which is missing; pip install 'mosaicaug\[timm\]'"):
        make_backbone(f"timm:{SMALL}")


@pytest.mark.parametrize("stride", [1, 2])
def test_tiny_backbone_halves_as_mobilenet_v2_does(stride: Literal[1, 2]) -> None:
    tiny, real = (measure(make(stem_stride=stride)) for make in (make_tiny, make_mobilenet_v2))
    assert [side for _, side in tiny] == [side for _, side in real]
