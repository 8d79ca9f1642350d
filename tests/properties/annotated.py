"""Properties of labels, boxes and keypoints: weights and places counted in pixels of the images that a plan makes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mosaicaug import (
    Placed,
    Plan,
    Targets,
    apply,
    apply_boxes,
    apply_keypoints,
    cross_entropy,
    mix_labels,
)
from tests.helpers.dense_oracle import Sources, trace_sources
from tests.helpers.oracle import Numbers, weigh_snapmix
from tests.properties.cases import OWN_TILES, Case
from tests.properties.pixels import calls, tried

CLASSES = 7


def check_labels(case: Case) -> None:
    """AssertionError unless weights of labels are shares of pixels, counted in images of ids."""
    assert case.tiles in OWN_TILES
    fields = case.make_fields()
    plan, random = Plan.from_dict(fields), np.random.default_rng([case.seed, 3])
    _count("labels", case)
    # 1. Images of ids: channel k of image k is 1, so that a channel's mean is the share of that image.
    ids = torch.eye(case.batch, dtype=torch.float64).view(case.batch, case.batch, 1, 1)
    shares = apply(ids.expand(-1, -1, *case.size), plan).mean((2, 3))  # [B, image]
    torch.testing.assert_close(shares, trace_sources(fields).count_images(case.batch), rtol=0, atol=1e-9)
    # 2. Targets: the own image and the partner, or one image twice.
    labels = torch.from_numpy(random.integers(0, CLASSES, case.batch))
    targets = mix_labels(plan, _convert(labels, case.seed))
    assert isinstance(targets, Targets)
    assert torch.equal(targets.labels_a, labels)
    assert torch.equal(targets.labels_b, labels[plan.overlay.long()])
    own, entry = plan.overlay == torch.arange(case.batch), torch.arange(case.batch)
    got = torch.where(own, targets.weight_a + targets.weight_b, targets.weight_b).double()
    torch.testing.assert_close(got, shares[entry, plan.overlay.long()], rtol=0, atol=2e-7)
    assert torch.equal(targets.weight_a, (1 - targets.weight_b.double()).float())
    # 3. Soft labels, made or given.
    soft = torch.nn.functional.one_hot(labels, CLASSES).double()
    made = mix_labels(plan, labels, num_classes=CLASSES)
    given = mix_labels(plan, soft.float())
    for values in (made, given, targets.to_soft(CLASSES)):
        assert isinstance(values, Tensor)
        torch.testing.assert_close(values.double(), shares @ soft, rtol=0, atol=5e-7)
    # 4. One loss, whatever the form of the labels.
    if case.batch:
        logits = torch.from_numpy(random.standard_normal((case.batch, CLASSES))).float()
        losses = [cross_entropy(logits, kind) for kind in (targets, made)]
        torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-6)


def check_snapmix_labels(case: Case) -> None:
    """AssertionError unless semantic weights are SnapMix's, counted pixel by pixel in maps of full size."""
    fields, random = case.make_fields(), np.random.default_rng([case.seed, 4])
    _count("labels", case)
    labels = torch.from_numpy(random.integers(0, 3, case.batch))
    shape = (case.batch, int(random.integers(1, 8)), int(random.integers(1, 8)))
    maps = torch.from_numpy(random.standard_normal(shape))
    maps[random.random(case.batch) < 0.2] = 0.25  # constant: no mass to share
    targets = mix_labels(Plan.from_dict(fields), labels, maps=maps)
    assert isinstance(targets, Targets)
    want = weigh_snapmix(fields, labels.tolist(), maps.tolist())
    for got, weights in zip(targets[2:], want, strict=True):
        torch.testing.assert_close(got.double(), torch.tensor(weights, dtype=torch.float64), rtol=1e-5, atol=1e-5)


def check_boxes(case: Case) -> None:
    """AssertionError unless boxes cover the pixels that show what they held, and nothing but what an overlay hides."""
    assert case.overlay in ("none", "in place", "moved")
    fields, random = case.make_fields(), np.random.default_rng([case.seed, 5])
    plan, sources = Plan.from_dict(fields), trace_sources(fields)
    boxes = _draw_boxes(random, case, int(random.integers(1, 4)))
    before = boxes.clone()
    _count("boxes", case)
    everything = apply_boxes(boxes, plan)
    assert torch.equal(boxes, before)
    least = int(random.integers(0, 65)) / 64
    chosen = apply_boxes(boxes, plan, min_visibility=least)
    largest = apply_boxes(boxes, plan, pieces="largest")
    own = case.tiles in OWN_TILES
    count, opacity = boxes.shape[1], torch.tensor(fields["opacity"])
    for entry in range(case.batch):
        layers = _list_layers(sources, entry, float(opacity[entry]))
        hidden = layers[1][0] & bool(opacity[entry] == 1)
        pieces, kept = (_read_pieces(placed, entry) for placed in (everything, chosen))
        for number in range(case.batch * count):
            box = boxes.view(-1, 4)[number].tolist()
            seen = [shown & _is_inside(box, y, x) & (image == number // count) for shown, image, y, x in layers]
            seen[0] &= ~hidden
            mine = pieces.get(number, [])
            # 1. Every pixel that shows the box is in one piece for each layer, and others only where they are hidden.
            painted = sum((_paint(piece, case.size).long() for piece in mine), torch.zeros(case.size).long())
            want = seen[0].long() + seen[1].long()
            assert torch.equal(painted[~hidden], want[~hidden])
            assert bool((painted >= want).all())
            # 2. Every piece is as small as it can be, and whole, or dropped if too little of it shows.
            area = (box[2] - box[0]) * (box[3] - box[1])
            shares = []
            for piece in mine:
                within = [_paint(piece, case.size) & layer for layer in seen]
                assert _is_tight(piece, within[0] | within[1])
                shares.append([int(layer.sum()) for layer in within])
            for piece, shown in zip(mine, shares, strict=True):
                possible = {value >= least * area for value in shown if value}
                if len(possible) == 1:
                    assert (piece in kept.get(number, [])) == possible.pop()
            assert all(piece in mine for piece in kept.get(number, []))
            # 3. The largest piece of the own image's, and of the partner's, in their slots.
            if own and number // count == entry:
                slot = _read_slot(largest, entry, number % count)
                most = max((shown[0] for shown in shares), default=0)
                if most and not seen[1].any():
                    assert slot in [piece for piece, shown in zip(mine, shares, strict=True) if shown[0] == most]
                elif not most:
                    assert slot is None


def check_resampled_boxes(case: Case) -> None:
    """AssertionError unless boxes follow an overlay that is resampled, edge by edge, over a base that stays."""
    assert case.tiles == "home"
    fields, random = case.make_fields(), np.random.default_rng([case.seed, 9])
    plan, boxes = Plan.from_dict(fields), _draw_boxes(random, case, int(random.integers(1, 4))).double()
    _count("boxes", case)
    placed = apply_boxes(boxes, plan)
    for entry in range(case.batch):
        partner, opacity = fields["overlay"][entry], fields["opacity"][entry]
        (top, left, bottom, right), source = fields["to_box"][entry], fields["from_box"][entry]
        covers = top < bottom and left < right
        shown = torch.ones(case.size, dtype=torch.bool)
        if covers and opacity == 1:
            shown[top:bottom, left:right] = False
        want: list[tuple[int, tuple[float, ...]]] = []
        for number, box in enumerate(boxes[entry].tolist()):
            rows, columns = (shown & _paint(tuple(box), case.size)).nonzero(as_tuple=True)
            if len(rows):
                ends = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
                want.append((entry * boxes.shape[1] + number, tuple(float(end) for end in ends)))
        for number, (x0, y0, x1, y1) in enumerate(boxes[partner].tolist()):
            near = max(y0, source[0]), max(x0, source[1])
            far = min(y1, source[2]), min(x1, source[3])
            if covers and opacity > 0 and near[0] < far[0] and near[1] < far[1]:
                (low_y, high_y), (low_x, high_x) = (
                    [
                        to[axis] + (edge - source[axis]) * (to[axis + 2] - to[axis]) / (source[axis + 2] - source[axis])
                        for edge in (near[axis], far[axis])
                    ]
                    for axis, to in ((0, fields["to_box"][entry]), (1, fields["to_box"][entry]))
                )
                want.append((partner * boxes.shape[1] + number, (low_x, low_y, high_x, high_y)))
        got = [(number, box) for number, pieces in _read_pieces(placed, entry).items() for box in pieces]
        assert len(got) == len(want)
        for (one, box), (two, wanted) in zip(sorted(got), sorted(want), strict=True):
            assert one == two
            np.testing.assert_allclose(box, wanted, rtol=0, atol=1e-9)


def check_fractions(case: Case) -> None:
    """AssertionError unless boxes of quarter pixels move as whole ones do on a plan four times as large."""
    case = replace(case, height=case.height * case.grid, width=case.width * case.grid)  # no margin
    fields, random = case.make_fields(), np.random.default_rng([case.seed, 10])
    larger = {**fields, "size": [4 * side for side in case.size]}
    larger |= {name: [[4 * edge for edge in box] for box in fields[name]] for name in ("from_box", "to_box")}
    boxes = _draw_boxes(random, replace(case, height=4 * case.height, width=4 * case.width), 3).double()
    _count("boxes", case)
    least = int(random.integers(0, 65)) / 64
    got, want = (
        apply_boxes(given, Plan.from_dict(plan), min_visibility=least)
        for given, plan in ((boxes / 4, fields), (boxes, larger))
    )
    assert torch.equal(got.source, want.source)
    torch.testing.assert_close(got.values * 4, want.values, rtol=0, atol=1e-9)


def check_keypoints(case: Case) -> None:
    """AssertionError unless keypoints lie where their pixels went; a resampled box is inverted."""
    assert case.tiles in OWN_TILES
    fields, random = case.make_fields(), np.random.default_rng([case.seed, 6])
    plan, sources = Plan.from_dict(fields), trace_sources(fields)
    count = int(random.integers(1, 4))
    scale = np.array([case.width, case.height])
    values = random.random((case.batch, count, 2)) * (scale + 1) - 0.5  # some of them outside
    values = np.where(random.random((case.batch, count, 1)) < 0.5, np.floor(values), np.floor(values * 8) / 8)
    points = torch.from_numpy(values)
    placed = apply_keypoints(points, plan)
    _count("keypoints", case)
    has_overlay = bool(plan.has_overlay.any())
    assert placed.values.shape == (case.batch, count * (1 + has_overlay), 2)
    for entry in range(case.batch):
        opacity = fields["opacity"][entry]
        base, overlay = _list_layers(sources, entry, opacity)
        partner = fields["overlay"][entry]
        for slot in range(count):
            x, y = values[entry, slot]
            inside = 0 <= x < case.width and 0 <= y < case.height
            place = (base[2] == int(np.floor(y))) & (base[3] == int(np.floor(x)))
            place &= ~(overlay[0] & (opacity == 1))
            want = _locate(place, x, y) if inside else None
            _expect_point(placed, entry, slot, want, entry * count + slot)
            if has_overlay:
                point = values[partner, slot]
                want = _resample(fields, entry, point) if opacity > 0 and bool(overlay[0].any()) else None
                _expect_point(placed, entry, count + slot, want, partner * count + slot)


def _count(kind: str, case: Case) -> None:
    tried[kind] += case.batch
    calls[kind] += 1


def _convert(labels: Tensor, seed: int) -> Any:
    """Labels in one of the forms that are accepted."""
    forms = (labels, labels.int(), labels.to(torch.uint8), labels.numpy(), labels.tolist())
    return forms[seed % len(forms)] if len(labels) else labels


def _draw_boxes(random: np.random.Generator, case: Case, count: int) -> Tensor:
    corners = [random.integers(0, side + 1, (case.batch, count, 2)) for side in (case.width, case.height)]
    near_far = np.sort(np.stack(corners, -1), 2)  # [B, N, corner, axis]
    near_far = np.where(random.random((case.batch, count, 1, 1)) < 0.1, [[0, 0], [case.width, case.height]], near_far)
    dtype = (torch.float32, torch.float64, torch.int64)[int(random.integers(3))]
    return torch.from_numpy(near_far.reshape(case.batch, count, 4)).to(dtype)


Layer = tuple[Tensor, Tensor, Tensor, Tensor]  # shown [H, W], image, y and x of one output


def _list_layers(sources: Sources, entry: int, opacity: float) -> tuple[Layer, Layer]:
    """Base and overlay of one output; the overlay's first tap, which is a copy where boxes are of one size."""
    shown = sources.weight[1:, entry].sum(0) > 0
    if opacity == 0:
        shown = torch.zeros_like(shown)
    taps = [tuple(values[tap, entry] for values in sources[1:4]) for tap in (0, 1)]
    base, overlay = (tuple(tap) for tap in taps)
    return (torch.ones_like(shown), *base), (shown, *overlay)  # type: ignore[return-value]


def _is_inside(box: list[float], y: Tensor, x: Tensor) -> Tensor:
    return (x >= box[0]) & (x < box[2]) & (y >= box[1]) & (y < box[3])


def _paint(box: tuple[float, ...], size: tuple[int, int]) -> Tensor:
    y, x = torch.arange(size[0])[:, None], torch.arange(size[1])
    return _is_inside(list(box), y, x)


def _is_tight(box: tuple[float, ...], shown: Tensor) -> bool:
    """True if something shows along each of the four edges of a box of whole numbers."""
    x0, y0, x1, y1 = (int(value) for value in box)
    part = shown[y0:y1, x0:x1]
    whole = (x0, y0, x1, y1) == box and part.numel() > 0
    return whole and all(bool(line.any()) for line in (part[0], part[-1], part[:, 0], part[:, -1]))


def _read_pieces(placed: Placed, entry: int) -> dict[int, list[tuple[float, ...]]]:
    """Pieces of one output by the number of their box."""
    pieces: dict[int, list[tuple[float, ...]]] = {}
    for box, number in zip(placed.values[entry].tolist(), placed.source[entry].tolist(), strict=True):
        if number >= 0:
            pieces.setdefault(number, []).append(tuple(box))
        else:
            assert box == [0, 0, 0, 0]
    return pieces


def _read_slot(placed: Placed, entry: int, slot: int) -> tuple[float, ...] | None:
    return tuple(placed.values[entry, slot].tolist()) if int(placed.source[entry, slot]) >= 0 else None


def _locate(place: Tensor, x: float, y: float) -> tuple[float, float] | None:
    """Position in the output of a point of the pixel that shows at ``place``, which is one pixel at most."""
    found = place.nonzero().tolist()
    assert len(found) <= 1
    return (found[0][1] + x % 1, found[0][0] + y % 1) if found else None


def _resample(fields: dict[str, Any], entry: int, point: Numbers) -> tuple[float, float] | None:
    """Position of a partner's point on the overlay: corners aligned along each axis."""
    source, target = fields["from_box"][entry], fields["to_box"][entry]
    made = []
    for axis, value in ((1, point[0]), (0, point[1])):
        first, last = source[axis], source[axis + 2] - 1
        low, high = target[axis], target[axis + 2] - 1
        if not first <= value < last + 1:
            return None
        if last - first == high - low:
            made.append(low + value - first)
        else:  # beyond the centre of the last pixel there is none to interpolate with
            made.append(low + (min(value, last) - first) * (high - low) / max(last - first, 1))
    return made[0], made[1]


def _expect_point(placed: Placed, entry: int, slot: int, want: tuple[float, float] | None, number: int) -> None:
    got = placed.values[entry, slot].tolist()
    if want is None:
        assert (int(placed.source[entry, slot]), got) == (-1, [0, 0])
    else:
        assert int(placed.source[entry, slot]) == number
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-9)
