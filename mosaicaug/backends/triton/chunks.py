"""Pixels of a chunk: loads them through tile, index, window and overlay, computes, and stores them.

A chunk is as many elements as 16 bytes hold, or fewer where a tile is not a whole number of chunks wide, of some rows.
It lies in one tile, so where it comes from is worked out once for its elements, for its rows and for some planes. What
a plan does not use is left out at compile time.
"""

from __future__ import annotations

import triton
import triton.language as tl

from mosaicaug.backends.triton.pixels import (
    as_units,
    bilinear_taps,
    cast,
    load_box,
    per_channel,
    row_pointers,
    to_compute,
)
from mosaicaug.contents import Overlay

WHOLE = tl.constexpr(int(Overlay.WHOLE))
ELSEWHERE = tl.constexpr(int(Overlay.ELSEWHERE))
RESAMPLED = tl.constexpr(int(Overlay.RESAMPLED))


@triton.jit
def make_chunks(
    images_ptr, out_ptr, table_ptr, index_ptr, window_ptr, mean_ptr, scale_ptr,
    overlay_at, index_at, window_at, mean_at, scale_at,
    stride_n, stride_t, stride_c, stride_y, stride_x,
    batch, outputs,
    HEIGHT: tl.constexpr, WIDTH: tl.constexpr, CHANNELS: tl.constexpr, FRAMES: tl.constexpr,
    TILES: tl.constexpr, GRID: tl.constexpr, PLANS: tl.constexpr, OVERLAY: tl.constexpr, BLEND: tl.constexpr,
    INDEX: tl.constexpr, WINDOW: tl.constexpr, MEAN: tl.constexpr, SCALE: tl.constexpr, COMPUTE: tl.constexpr,
    INNER: tl.constexpr, CONTIGUOUS: tl.constexpr, ALIGN: tl.constexpr, PACKED: tl.constexpr, OFFSET: tl.constexpr,
    VEC: tl.constexpr, PLANES: tl.constexpr, ROWS: tl.constexpr, CHUNKS: tl.constexpr,
):  # fmt: skip
    """Make ``CHUNKS`` chunks of ``PLANES`` planes of one output image; arguments as those of the kernel."""
    # 1. Which elements this program makes: CHUNKS chunks of ROWS x VEC elements, each within one tile.
    BITS: tl.constexpr = images_ptr.dtype.element_ty.primitive_bitwidth  # of a stored element
    BYTES: tl.constexpr = images_ptr.dtype.element_ty == tl.uint8 and COMPUTE == tl.float32  # arithmetic on bytes
    # Of a run of the source. Given for the first run by itself: Triton drops an addition of 0, and the hint with it.
    ALIGN_BYTES: tl.constexpr = ALIGN * (BITS // 8)
    UNIT: tl.constexpr = 32 // BITS if PACKED else 1  # elements that are loaded and stored as one
    UNITS: tl.constexpr = VEC // UNIT  # of a row of a chunk
    MERGED: tl.constexpr = (not CONTIGUOUS and not BLEND) and (OVERLAY > 0 and OVERLAY < RESAMPLED)  # one load for both
    ROW: tl.constexpr = WIDTH * INNER // VEC  # chunks of a row
    ALL: tl.constexpr = (HEIGHT + ROWS - 1) // ROWS * ROW  # chunks of an image's plane
    BLOCKS: tl.constexpr = (ALL + CHUNKS - 1) // CHUNKS  # programs of an image
    # One axis of programs, whose number may be large: image after image, and in each its planes.
    GROUPS: tl.constexpr = FRAMES * CHANNELS // INNER // PLANES  # of planes
    program = tl.program_id(0)
    image = program // (BLOCKS * GROUPS)
    first_plane = program // BLOCKS % GROUPS * PLANES
    entry = image
    if PLANS > 1:
        entry = image % batch
    chunk = (program % BLOCKS) * CHUNKS + tl.arange(0, CHUNKS)
    in_image = chunk < ALL
    y = (chunk.to(tl.uint32) // ROW).to(tl.int32)
    chunk_start = (chunk - y * ROW) * VEC
    y *= ROWS
    column = chunk_start[:, None] + tl.arange(0, VEC)[None, :]  # [CHUNKS, VEC], of the row's elements
    x = chunk_start[:, None] + tl.arange(0, VEC)[None, :]
    c = tl.zeros_like(x)
    if INNER > 1:
        x = (column.to(tl.uint32) // INNER).to(tl.int32)
        c = column - x * INNER

    # 2. Where the base comes from: stored rows of each chunk, looked up through its tile, the index and the window.
    base_entry, base_y, shift_x = tl.zeros_like(y) + entry, y, tl.zeros_like(y)
    if TILES:
        tiles_ptr, grid = table_ptr, GRID
        if GRID == 0:
            grid = tl.load(table_ptr + 2 * (image // batch))
        tiles_ptr = table_ptr + tl.load(table_ptr + 2 * (image // batch if PLANS > 1 else 0) + 1)
        tile_height, tile_width = HEIGHT // grid, WIDTH // grid
        row, col = y // tile_height, chunk_start // (tile_width * INNER)
        tiled = in_image & (row < grid) & (col < grid)  # the margin belongs to no tile
        tile = tl.load(tiles_ptr + (entry * grid + row) * grid + col, mask=tiled, other=0)
        tile_row = tile // grid  # image * grid + row
        base_entry = tl.where(tiled, tile_row // grid, entry)
        base_y += tl.where(tiled, (tile_row % grid - row) * tile_height, 0)
        shift_x = tl.where(tiled, (tile % grid - col) * tile_width, 0)
    base_ptr, base_begin, base_step = row_pointers(
        images_ptr, base_entry, base_y, shift_x, index_ptr, index_at, window_ptr, window_at,
        stride_n, stride_y, stride_x, INDEX, WINDOW, WIDTH, OFFSET,
    )  # fmt: skip
    if CONTIGUOUS:
        base_ptr = tl.multiple_of(base_ptr + (base_begin + chunk_start), ALIGN_BYTES)
    else:
        base_offset = base_begin[:, None] + x.to(OFFSET) * base_step[:, None]
        if INNER > 1:
            base_offset += c.to(OFFSET) * stride_c

    # 3. What the overlay covers, and where its pixels come from.
    if OVERLAY > 0:
        overlay_ptr = table_ptr + overlay_at
        partner = tl.zeros_like(y) + tl.load(overlay_ptr + image)
        opacity = tl.load((overlay_ptr + outputs).to(tl.pointer_type(tl.float32), bitcast=True) + image)
        opaque = tl.load(overlay_ptr + outputs + image) == 0x3F800000  # the bits of 1.0
        from_y0, from_x0, from_y1, from_x1 = load_box(overlay_ptr + 2 * outputs + 4 * image)
        to_y0, to_x0, to_y1, to_x1 = load_box(overlay_ptr + 6 * outputs + 4 * image)
        if OVERLAY == WHOLE:  # one answer for all pixels of an image
            in_columns = tl.full((CHUNKS, 1), 1, tl.int1) & (to_y1 > 0)
        else:
            in_columns = (column >= to_x0 * INNER) & (column < to_x1 * INNER)
        if PACKED:  # the box's bits of each word, for all rows and planes
            first = chunk_start[:, None] + tl.arange(0, UNITS)[None, :] * UNIT
            box_bits = tl.zeros_like(first)
            for i in tl.static_range(UNIT):
                element = (first + i >= to_x0 * INNER) & (first + i < to_x1 * INNER)
                box_bits |= (
                    tl.where(element, ((1 << BITS) - 1) << (BITS * i), 0).to(tl.uint32).to(tl.int32, bitcast=True)
                )
        touched = (chunk_start + VEC > to_x0 * INNER) & (chunk_start < to_x1 * INNER)
        # What the overlay hides is not read. Whole chunks are, or nothing of them, so that reads stay wide.
        covered = (chunk_start >= to_x0 * INNER) & (chunk_start + VEC <= to_x1 * INNER) & opaque
        over_y, near = y, x
        if OVERLAY == ELSEWHERE:
            over_y, near = y - to_y0 + from_y0, x - to_x0 + from_x0
        if OVERLAY == RESAMPLED:
            PRECISION: tl.constexpr = tl.float32 if COMPUTE is None else COMPUTE  # of the taps' positions
            over_y = tl.zeros_like(y)
            near, far, across = bilinear_taps(x - to_x0, from_x0, from_x1, to_x1 - to_x0, PRECISION)
            if COMPUTE is None:  # the nearest pixel
                near = tl.where(across > 0.5, far, near)
            same_size = (to_y1 - to_y0 == from_y1 - from_y0) & (to_x1 - to_x0 == from_x1 - from_x0)
        over_ptr, over_begin, over_step = row_pointers(
            images_ptr, partner, over_y, tl.zeros_like(y), index_ptr, index_at, window_ptr, window_at,
            stride_n, stride_y, stride_x, INDEX, WINDOW, WIDTH, OFFSET,
        )  # fmt: skip
        if OVERLAY < ELSEWHERE and CONTIGUOUS:
            over_ptr = tl.multiple_of(over_ptr + chunk_start, ALIGN_BYTES)
        else:
            near_offset = over_begin[:, None] + near.to(OFFSET) * over_step[:, None]
            if INNER > 1:
                near_offset += c.to(OFFSET) * stride_c
        if OVERLAY == RESAMPLED and COMPUTE is not None:
            far_offset = near_offset + (far - near).to(OFFSET) * over_step[:, None]

    # 4. Load, for all planes and rows: one that stood after arithmetic would be waited for by itself, and one after a
    # store as well, since the compiler cannot know that they never meet.
    bases, overs, insides = (), (), ()
    rights, belows, corners, downs = (), (), (), ()  # other taps of the overlay, and the weight of the lower two
    for k in tl.static_range(PLANES):
        plane = first_plane + k  # of CHANNELS * FRAMES, or of FRAMES if channels are side by side
        frame = plane // CHANNELS
        if INNER > 1:
            frame = plane
        plane_offset = frame.to(tl.int64) * stride_t
        if INNER == 1:
            plane_offset += (plane % CHANNELS).to(tl.int64) * stride_c
        for j in tl.static_range(ROWS):
            row_offset = plane_offset + tl.full((), j, tl.int64) * stride_y
            mask = in_image
            if HEIGHT % ROWS > 0:
                mask = in_image & (y + j < HEIGHT)
            base_mask = mask
            if OVERLAY > 0:
                in_rows = mask
                if OVERLAY != WHOLE:
                    in_rows = mask & (y + j >= to_y0) & (y + j < to_y1)
                inside = in_rows[:, None] & in_columns
                insides = insides + (in_rows if PACKED else inside,)  # type: ignore[assignment]
                base_mask = mask & ((in_rows & covered) == 0)
            # The base.
            if MERGED:
                here = tl.where(
                    inside,
                    (over_ptr + row_offset)[:, None] + near_offset,
                    (base_ptr + row_offset)[:, None] + base_offset,
                )
                base = tl.load(here, mask=mask[:, None], other=0)
            elif CONTIGUOUS:
                run_ptr = as_units(tl.multiple_of(base_ptr + row_offset, ALIGN_BYTES), PACKED)
                base = tl.load(run_ptr[:, None] + tl.arange(0, UNITS)[None, :], mask=base_mask[:, None], other=0)
            else:
                base = tl.load((base_ptr + row_offset)[:, None] + base_offset, mask=base_mask[:, None], other=0)
            bases = bases + (base,)  # type: ignore[assignment]
            # The overlay.
            if OVERLAY > 0 and not MERGED:
                top_ptr = over_ptr + row_offset
                if OVERLAY == RESAMPLED:
                    top, bottom, down = bilinear_taps(y + j - to_y0, from_y0, from_y1, to_y1 - to_y0, PRECISION)
                    if COMPUTE is None:
                        top = tl.where(down > 0.5, bottom, top)
                    top_ptr = over_ptr + (plane_offset + top.to(tl.int64) * stride_y)
                if OVERLAY < ELSEWHERE and CONTIGUOUS:
                    run_ptr = as_units(tl.multiple_of(top_ptr, ALIGN_BYTES), PACKED)
                    over_mask = (in_rows & touched)[:, None]
                    over = tl.load(run_ptr[:, None] + tl.arange(0, UNITS)[None, :], mask=over_mask, other=0)
                else:
                    over = tl.load(top_ptr[:, None] + near_offset, mask=inside, other=0)
                overs = overs + (over,)  # type: ignore[assignment]
                if OVERLAY == RESAMPLED and COMPUTE is not None:
                    bottom_ptr = over_ptr + (plane_offset + bottom.to(tl.int64) * stride_y)
                    rights = rights + (tl.load(top_ptr[:, None] + far_offset, mask=inside, other=0),)  # type: ignore[assignment]
                    belows = belows + (tl.load(bottom_ptr[:, None] + near_offset, mask=inside, other=0),)  # type: ignore[assignment]
                    corners = corners + (tl.load(bottom_ptr[:, None] + far_offset, mask=inside, other=0),)  # type: ignore[assignment]
                    downs = downs + (down[:, None],)  # type: ignore[assignment]

    # 5. Interpolate, blend, lay the overlay over the base, normalise, and cast.
    means, scales = (), ()
    if MEAN:
        mean_ptr = mean_ptr.to(tl.pointer_type(COMPUTE), bitcast=True) + mean_at
    if SCALE:
        scale_ptr = scale_ptr.to(tl.pointer_type(COMPUTE), bitcast=True) + scale_at
    for k in tl.static_range(PLANES):
        channel = (first_plane + k) % CHANNELS
        if MEAN:
            mean = tl.load(mean_ptr + channel) if INNER == 1 else per_channel(mean_ptr, chunk_start, c, VEC, INNER)
            means = means + (mean,)  # type: ignore[assignment]
        if SCALE:
            scale = tl.load(scale_ptr + channel) if INNER == 1 else per_channel(scale_ptr, chunk_start, c, VEC, INNER)
            scales = scales + (scale,)  # type: ignore[assignment]
    values = ()
    for k in tl.static_range(PLANES):
        for j in tl.static_range(ROWS):
            value = bases[k * ROWS + j]  # type: ignore[var-annotated]
            if COMPUTE is not None:
                value = to_compute(value, COMPUTE)
            if OVERLAY > 0 and not MERGED:
                over, inside = overs[k * ROWS + j], insides[k * ROWS + j]
                if COMPUTE is not None:
                    over = to_compute(over, COMPUTE)
                if OVERLAY == RESAMPLED and COMPUTE is not None:
                    down = downs[k * ROWS + j]
                    near_column = (1 - down) * over + down * to_compute(belows[k * ROWS + j], COMPUTE)
                    right, corner = rights[k * ROWS + j], corners[k * ROWS + j]  # type: ignore[var-annotated]
                    far_column = (1 - down) * to_compute(right, COMPUTE) + down * to_compute(corner, COMPUTE)
                    over = tl.where(same_size, over, (1 - across) * near_column + across * far_column)
                if BLEND and BYTES:  # finite: weights of 0 and 1 are exact, and hide what they should
                    weight = tl.where(inside, opacity, 0.0)
                    value = (1 - weight) * value + weight * over
                elif PACKED:
                    chosen = tl.where(inside[:, None], box_bits, 0)
                    value = (value & ~chosen) | (over & chosen)
                else:
                    if BLEND:
                        weight = opacity.to(COMPUTE)
                        over = tl.where(opaque, over, (1 - weight) * value + weight * over)
                    value = tl.where(inside, over, value)
            if MEAN:
                value = value - means[k]
            if SCALE:
                value = value * scales[k]
            if not PACKED:
                value = cast(value, out_ptr.dtype.element_ty, (not BYTES or MEAN) or SCALE)
            values = values + (value,)  # type: ignore[assignment]

    # 6. Store.
    plane = image.to(tl.int64) * (FRAMES * CHANNELS // INNER) + first_plane
    out_offset = plane * (HEIGHT * ROW * VEC) + (y * (ROW * VEC) + chunk_start)
    out_pointers = tl.multiple_of(out_ptr + out_offset, VEC * (out_ptr.dtype.element_ty.primitive_bitwidth // 8))
    out_pointers = as_units(out_pointers, PACKED)[:, None] + tl.arange(0, UNITS)[None, :]
    for k in tl.static_range(PLANES):
        for j in tl.static_range(ROWS):
            mask = in_image
            if HEIGHT % ROWS > 0:
                mask = in_image & (y + j < HEIGHT)
            there = out_pointers + (k * (HEIGHT * ROW * UNITS) + j * (ROW * UNITS))
            tl.store(there, values[k * ROWS + j], mask=mask[:, None])
