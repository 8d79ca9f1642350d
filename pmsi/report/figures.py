"""Pictures of a report: image strips as data URIs, activation maps as overlays."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import matplotlib as mpl
import torch
from markupsafe import Markup
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from pmsi.report.table import render_part

_SMALLEST_SIDE = 96  # px, below which pictures are enlarged


def overlay_heatmap(images: Tensor, maps: Tensor, *, opacity: float = 0.5, colormap: str = "turbo") -> Tensor:
    """Maps in colour over the images.

    Args:
        images: uint8 ``[B, 3, H, W]``.
        maps: ``[B, h, w]`` in 0..1, of any resolution; interpolated to the images' (bilinear).
        opacity: of the colours, 0 to 1.
        colormap: a name of matplotlib's.

    Returns:
        uint8 ``[B, 3, H, W]``.

    Raises:
        TypeError: images that are not uint8. ValueError: shapes that do not fit, an opacity outside 0..1, or a colour
            map that matplotlib does not know.

    >>> black, hot = torch.zeros(1, 3, 4, 4, dtype=torch.uint8), torch.ones(1, 2, 2)
    >>> overlay_heatmap(black, hot, colormap="gray")[0, :, 0, 0].tolist()
    [128, 128, 128]
    """
    if images.dtype != torch.uint8:
        raise TypeError(f"overlay: images must be uint8, got {images.dtype}")
    if images.ndim != 4 or images.shape[1] != 3 or maps.ndim != 3 or len(maps) != len(images):
        raise ValueError(
            f"overlay: needs images [B, 3, H, W] and maps [B, h, w], got {list(images.shape)} and {list(maps.shape)}"
        )
    if not 0 <= opacity <= 1:
        raise ValueError(f"overlay: opacity must lie in 0..1, got {opacity}")
    if colormap not in mpl.colormaps:
        raise ValueError(f"overlay: matplotlib has no colour map {colormap!r}")
    large = F.interpolate(maps[:, None].float(), images.shape[2:], mode="bilinear", align_corners=False)[:, 0]
    colors = torch.as_tensor(mpl.colormaps[colormap](large.cpu().numpy())[..., :3])  # [B, H, W, 3] in 0..1
    colors = 255 * colors.permute(0, 3, 1, 2).to(images.device, torch.float32)
    return torch.lerp(images.float(), colors, opacity).round().to(torch.uint8)


def show_activations(images: Tensor, maps: Sequence[Tensor], names: Sequence[str]) -> Markup:
    """Images, and below them the maps of each stage as overlays (Fig. 4).

    Args:
        images: uint8 ``[B, 3, H, W]``, as the network saw them.
        maps: of each stage ``[B, h, w]`` in 0..1, shallow to deep.
        names: of the stages.
    """
    pictures = [
        ("test images", images),
        *((name, overlay_heatmap(images, one)) for name, one in zip(names, maps, strict=True)),
    ]
    return Markup("").join(render_part("figure", name, *encode(picture)) for name, picture in pictures)


def encode(images: Tensor) -> tuple[str, int, int]:
    """Images uint8 ``[K, 3, H, W]`` side by side: a PNG as a data URI, and the width and height to show it at, px."""
    side = images.permute(2, 0, 3, 1).flatten(1, 2).contiguous()  # [H, K*W, 3]
    file = io.BytesIO()
    Image.fromarray(side.numpy()).save(file, format="PNG", optimize=True)
    zoom = max(1, round(_SMALLEST_SIDE / images.shape[2]))
    uri = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    return uri, side.shape[1] * zoom, side.shape[0] * zoom
