"""Pictures of a report: curves as SVG, image strips as data URIs, activation maps as overlays."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from pmsi.recipe import METHODS, Method
from pmsi.report.mobile import MOST_MACS, MOST_MEGABYTES, CostPoint
from pmsi.report.regimes import Measured, name_method
from pmsi.report.table import render_part

_SMALLEST_SIDE = 96  # px, below which pictures are enlarged
_MOST_MARKERS = 40  # of a curve, beyond which they run together
_LARGEST_SIDE = 160  # px, above which they are shrunk: a page of 448 px pictures would be hundreds of megabytes
# Okabe and Ito's colours, told apart by readers with any colour vision; rows beyond them are dashed.
_COLORS = ("#7f7f7f", "#e69f00", "#56b4e9", "#cc79a7", "#009e73", "#d55e00", "#0072b2", "#222222")
_DASHES = ("-", "--", ":")


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
    overlays = [overlay_heatmap(images, one) for one in maps]
    return show_strips([images, *overlays], ["test images", *names])


def show_strips(rows: Sequence[Tensor], captions: Sequence[str], *, about: str = "") -> Markup:
    """Rows of images, each below its caption.

    Args:
        rows: uint8 ``[K, 3, H, W]`` each.
        captions: of the rows.
        about: what the images are, for readers who cannot see them.
    """
    return Markup("").join(
        render_part("figure", caption, f"{caption}{': ' if about else ''}{about}", *encode(images))
        for images, caption in zip(rows, captions, strict=True)
    )


def encode(images: Tensor) -> tuple[str, int, int]:
    """Images uint8 ``[K, 3, H, W]`` side by side: a PNG as a data URI, and the width and height to show it at, px."""
    side = images.permute(2, 0, 3, 1).flatten(1, 2).contiguous()  # [H, K*W, 3]
    picture = Image.fromarray(side.numpy())
    if images.shape[2] > _LARGEST_SIDE:
        width = len(images) * round(_LARGEST_SIDE * images.shape[3] / images.shape[2])
        picture = picture.resize((width, _LARGEST_SIDE), Image.Resampling.BOX)
    file = io.BytesIO()
    picture.save(file, format="PNG", optimize=True)
    zoom = max(1, round(_SMALLEST_SIDE / images.shape[2]))
    uri = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    return uri, picture.width * zoom, picture.height * zoom


def show_curves(rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> Markup:
    """Test accuracy and training loss by epoch, as inline SVG; every run is a line. Empty without a curve.

    Args:
        rows: runs by label, one for each seed; ``curve`` of a run has a record for each epoch.
    """
    lines = {label: [run["curve"] for run in runs if run["curve"]] for label, runs in rows.items()}
    if not any(lines.values()):
        return Markup("")
    styles = {label: (_COLORS[k % len(_COLORS)], _DASHES[k // len(_COLORS) % 3]) for k, label in enumerate(rows)}
    drawn = {label: style for label, style in styles.items() if lines[label]}
    plots = [
        ("test accuracy, Mix, %", _plot(lines, styles, lambda record: record["mix"])),
        ("training loss of the concat phase", _plot(lines, styles, lambda record: record["losses"][-1])),
    ]
    dash = {"-": "solid", "--": "dashed", ":": "dotted"}
    return render_part("curves", plots, [(label, color, dash[line]) for label, (color, line) in drawn.items()])


def show_regimes(points: Sequence[Measured]) -> Markup:
    """Accuracy over epochs with intervals, as inline SVG: a panel for each number of images a class."""
    panels, plots = _split_panels(points), []
    for title, panel in panels.items():
        with use_style():
            figure = Figure(figsize=(4.6, 3.2), layout="constrained")
            _draw_panel(figure.subplots(), panel, points)
            plots.append((f"{title}: accuracy, Mix, %", draw_svg(figure)))
    styles = [(name_method(method), _COLORS[METHODS.index(method)], "solid") for method in _list_methods(points)]
    return render_part("curves", plots, styles)


def save_regimes(points: Sequence[Measured], path: Path) -> None:
    """Write the picture of `show_regimes` as one file of pixels, two panels side by side."""
    panels = _split_panels(points)
    columns = min(len(panels), 2)
    rows = -(-len(panels) // 2)
    with use_style():
        figure = Figure(figsize=(3 * columns, 0.4 + 2.3 * rows), layout="constrained", dpi=200)
        axes = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
        for place, (title, panel) in zip(axes, panels.items(), strict=False):
            _draw_panel(place, panel, points)
            place.set_title(title, fontsize=10)
        for place in axes[::columns]:
            place.set_ylabel("accuracy, Mix, %")
        for place in axes[len(panels) :]:
            place.set_visible(False)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
        figure.savefig(path, metadata={"Software": None})


def show_costs(points: Sequence[CostPoint]) -> Markup:
    """Accuracy over multiply-accumulates, as inline SVG: a mark with its interval for each network."""
    with use_style():
        return render_part("drawing", "accuracy by cost", draw_svg(_draw_costs(points)))


def save_costs(points: Sequence[CostPoint], path: Path) -> None:
    """Write the picture of `show_costs` as one file of pixels."""
    with use_style():
        _draw_costs(points).savefig(path, metadata={"Software": None}, dpi=200)


def _draw_costs(points: Sequence[CostPoint]) -> Figure:
    """Draw the marks; the axis is linear up to 5 % beyond plain MobileNetV2, and then logarithmic."""
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    for k, point in enumerate(points):
        axes.errorbar(
            100 * (point.ratio - 1),
            point.accuracy,
            [[max(0.0, point.accuracy - point.low)], [max(0.0, point.high - point.accuracy)]],
            color=_COLORS[k % len(_COLORS)],
            marker="osD^vPX<>*"[k % 10],
            markerfacecolor=None if point.megabytes <= MOST_MEGABYTES else "none",
            linestyle="none",
            ms=6,
            elinewidth=1.2,
            capsize=2.5,
            label=point.row,
        )
    axes.set_xscale("symlog", linthresh=5, linscale=0.5)
    most = max(100 * (point.ratio - 1) for point in points)
    ticks = [one for one in (0, 5, 10, 15, 30, 100, 300, 1000) if one <= max(most, 15)]
    axes.set_xticks(ticks, [f"{one}" for one in ticks])
    axes.minorticks_off()
    axes.axvline(100 * (MOST_MACS - 1), color="#7f7f7f", linestyle=":", lw=1.2)
    axes.set_ylabel("accuracy, %")
    finish_axes(axes, "multiply-accumulates beyond plain MobileNetV2's, %")
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    return figure


def _split_panels(points: Sequence[Measured]) -> dict[str, list[Measured]]:
    """Points of each panel by its title."""
    panels: dict[str, list[Measured]] = {}
    for point in points:
        panels.setdefault(f"{point.per_class} training images a class", []).append(point)
    return panels


def _list_methods(points: Sequence[Measured]) -> list[Method]:
    found = {point.method for point in points}
    return [method for method in METHODS if method in found]


def _draw_panel(axes: Axes, panel: Sequence[Measured], points: Sequence[Measured]) -> None:
    """Draw a line with intervals for each method; all panels of ``points`` have the same axes."""
    methods = _list_methods(points)
    for k, method in enumerate(methods):
        line = sorted((point.epochs, point) for point in panel if point.method == method)
        shift = 1.03 ** (k - (len(methods) - 1) / 2)  # side by side, so that no interval hides another
        reach = [
            [max(0.0, point.accuracy - point.low) for _, point in line],  # rounding errors are not below 0
            [max(0.0, point.high - point.accuracy) for _, point in line],
        ]
        axes.errorbar(
            [epochs * shift for epochs, _ in line],
            [point.accuracy for _, point in line],
            reach,
            color=_COLORS[METHODS.index(method)],
            marker="osD^vP"[METHODS.index(method)],
            ms=4,
            lw=1.8,
            elinewidth=1.2,
            capsize=2.5,
            label=name_method(method),
        )
    epochs = sorted({point.epochs for point in points})
    axes.set_xscale("log", base=2)
    axes.set_xticks(epochs, [str(one) for one in epochs])
    axes.set_xlim(epochs[0] / 1.15, epochs[-1] * 1.15)
    low, high = min(point.low for point in points), max(point.high for point in points)
    axes.set_ylim(low - 0.05 * (high - low) - 1, high + 0.05 * (high - low) + 1)
    finish_axes(axes, "epochs")


def _plot(
    lines: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]],
    styles: Mapping[str, tuple[str, str]],
    value: Callable[[Mapping[str, Any]], float | None],
) -> Markup:
    """Draw one panel, of a width that a telephone shows unshrunk."""
    with use_style():
        figure = Figure(figsize=(4.6, 3), layout="constrained")
        axes = figure.subplots()
        for label, curves in lines.items():
            color, dash = styles[label]
            for curve in curves:
                points = {record["epoch"]: value(record) for record in curve}
                known = {epoch: point for epoch, point in points.items() if point is not None}
                marker = "o" if len(known) <= _MOST_MARKERS else ""
                axes.plot(list(known), list(known.values()), dash, color=color, lw=1.8, marker=marker, ms=3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        finish_axes(axes, "epoch")
        return draw_svg(figure)


def use_style() -> AbstractContextManager[None]:
    """Set fonts and ids of drawings, so that the same values make the same file."""
    return mpl.rc_context({"svg.fonttype": "path", "svg.hashsalt": "pmsi", "font.size": 10})


def finish_axes(axes: Axes, xlabel: str) -> None:
    """Name the horizontal axis, and draw a faint grid and no frame."""
    axes.set(xlabel=xlabel)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def draw_svg(figure: Figure) -> Markup:
    """Draw as SVG to stand within a page."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None}, transparent=True)
    svg = file.getvalue()
    return Markup(svg[svg.index("<svg") :])
