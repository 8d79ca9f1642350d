"""Tiled base on a CPU: the source of each run of pixels, and the copies of runs to their places."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from mosaicaug.backends.cpu import workers
from mosaicaug.plan import Plan, arange

SCRATCH_BYTES = 3 * 2**18  # that a block may take beside the output, by a rough count
STAGE_BYTES = 5 * 2**20  # of images that the cache holds while rows are picked from them

Block = tuple[slice, slice]  # images, rows


class View:
    """Stored images seen through an index and windows: batch entries of the plan's size.

    Args:
        images: stored images ``[N, *lead, C, height, width]``.
        index: ``[B]``, stored image of each entry; None for the entries themselves.
        window: ``[B, 3]``, crop and flip of each entry; None for whole images.
        size: height and width of an entry, px.
    """

    def __init__(self, images: Tensor, index: Tensor | None, window: Tensor | None, size: tuple[int, int]) -> None:
        self.images, self.size = images, size
        self.index, self.window = (None if v is None else v.to("cpu", torch.int64) for v in (index, window))
        self.mirrors = self.window is not None and bool(self.window[:, 2].any())

    def run_offsets(self, entry: Tensor, y: Tensor, x: Tensor | int, run: int) -> Tensor:
        """Offsets (elements) in the first plane of the ``run`` pixels that ``entry`` shows from ``y, x`` on.

        Of a mirrored entry, this is the run's last pixel, the first in memory.
        """
        if self.window is not None:
            top, left, flip = self.window[entry].unbind(-1)
            x = left + (torch.where(flip != 0, self.size[1] - run - x, x) if self.mirrors else x)
            y = y + top
        stored = entry if self.index is None else self.index[entry]
        strides = self.images.stride()
        return stored * strides[0] + y * strides[-2] + x * strides[-1]

    def is_mirrored(self, entry: Tensor) -> Tensor | None:
        """Mirrored entries, bool like ``entry``; None if no entry is mirrored."""
        return self.window[entry, 2] != 0 if self.window is not None and self.mirrors else None

    def copy_runs(self, offsets: Tensor, run: int, into: Tensor, mirrored: Tensor | None) -> None:
        """Copy the runs at ``offsets`` ``[k, h, g]`` into ``[k, *lead, h, g * run]``, mirrored where asked."""
        into = into.view(*into.shape[:-1], -1, run)
        shape = (*self.images.shape[1:-2], run)
        strides = (*self.images.stride()[1:-2], self.images.stride(-1))
        stored = self.images.untyped_storage().nbytes() // self.images.element_size()
        reach = sum((length - 1) * step for length, step in zip(shape, strides, strict=True))
        count = stored - self.images.storage_offset() - reach
        # A view with one run of all planes beginning at every element: indexing it copies whole runs.
        runs = self.images.as_strided((count, *shape), (1, *strides))
        torch.ops.aten.index.Tensor_out(runs, [offsets], out=into.movedim((-3, -2), (1, 2)))
        if mirrored is not None and mirrored.any():
            flipped = into.flip(-1)
            where = mirrored.view(len(mirrored), *(1,) * (into.ndim - 4), *mirrored.shape[1:], 1)
            into.copy_(flipped if mirrored.all() else torch.where(where, flipped, into))

    def crop(self, entry: int, box: list[int]) -> Tensor:
        """Pixels of ``entry`` in ``box`` (y0, x0, y1, x1), ``[*lead, h, w]``; shares memory unless mirrored."""
        y0, x0, y1, x1 = box
        stored = self.images[entry if self.index is None else int(self.index[entry])]
        if self.window is None:
            return stored[..., y0:y1, x0:x1]
        top, left, flip = self.window[entry].tolist()
        if not flip:
            return stored[..., top + y0 : top + y1, left + x0 : left + x1]
        end = left + self.size[1]
        return stored[..., top + y0 : top + y1, end - x1 : end - x0].flip(-1)


class TiledBase:
    """Tiled base of a plan's outputs, written block by block or, where memory allows, row by row."""

    def __init__(self, view: View, plan: Plan) -> None:
        self.view, self.moves = view, plan.moves_tiles
        self.reads = self.moves or view.window is not None  # pixels come from elsewhere than their own place
        self.grid = grid = plan.grid if self.moves else 1
        self.tile = plan.size[0] // grid, plan.size[1] // grid  # height and width, px
        if self.reads:
            tiles = plan.tiles if self.moves else arange(len(plan))
            self.tiles = tiles.view(-1, grid, grid)

    @functools.cached_property
    def tile_offsets(self) -> Tensor:
        """Offset (elements) of each tile's source, int64 ``[B, G, G]``."""
        grid, (height, width) = self.grid, self.tile
        tiles = self.tiles.long()
        return self.view.run_offsets(tiles // grid**2, tiles // grid % grid * height, tiles % grid * width, width)

    @functools.cached_property
    def mirrored_tiles(self) -> Tensor | None:
        """Tiles whose source is mirrored, bool ``[B, G, G]``; None if there are none."""
        return self.view.is_mirrored(self.tiles.long() // self.grid**2)

    @functools.cached_property
    def crops_first(self) -> bool:
        """True if images are small and keep their tiles: each is then cropped, and its tiles picked from the crop."""
        height, width = self.view.size
        small = self.view.images[:1, ..., :height, :width].nbytes <= SCRATCH_BYTES
        return self.moves and self.view.window is not None and small and self.source_rows is not None

    @functools.cached_property
    def source_rows(self) -> Tensor | None:
        """First row of pixels of each tile's source, int32 ``[B, G, 1, G]``, counted from the image's first tile.

        Row y of the tile in ``row, column`` of a plane has the number ``(row * height + y) * G + column``. None if
        there is a margin, or if a tile comes from another image.
        """
        grid, (height, width) = self.grid, self.tile
        tile_rows, image = self.tiles // grid, arange(len(self.tiles)).view(-1, 1, 1)
        if self.view.size != (grid * height, grid * width) or not bool((tile_rows // grid == image).all()):
            return None
        rows = self.tiles.add(tile_rows, alpha=grid * (height - 1)).sub_(image * (height * grid**2))
        return rows.view(-1, grid, 1, grid)

    def scratch_bytes(self, stage: torch.dtype) -> float:
        """Bytes beside the output that an element of a block takes if blocks are made in the dtype ``stage``."""
        size = self.view.images.element_size()
        converts = self.reads and self.view.images.dtype != stage
        positions = 10 / self.tile[1] if self.reads else 0
        return positions + (converts + 2 * self.view.mirrors) * size

    def write(self, block: Block, into: Tensor) -> None:
        """Fill ``into`` ``[k, *lead, h, W]`` with the base of the block."""
        view, (images, rows) = self.view, block
        # 1. Nothing moves: one copy, or one per image through the index and the windows.
        if not self.reads and view.index is None:
            into.copy_(view.images[images, ..., rows, :])
        elif not self.moves:
            for entry, image in enumerate(into, images.start):
                _copy(view.crop(entry, [rows.start, 0, rows.stop, view.size[1]]), image)
        # 2. Tiles within small images: crop each, then pick rows from the crop.
        elif self.crops_first and rows == slice(0, view.size[0]):
            for entry, image in enumerate(into, images.start):
                self._write_cropped(entry, image)
        # 3. Another dtype: runs are copied as they are, then cast.
        elif into.dtype != view.images.dtype:
            scratch = torch.empty_like(into, dtype=view.images.dtype)
            self.write(block, scratch)
            into.copy_(scratch)
        # 4. Any tiles: one run per row of a tile, then the margin at the right and at the bottom.
        else:
            (height, width), tiled = self.tile, max(rows.start, min(rows.stop, self.grid * self.tile[0]))
            y = torch.arange(rows.start, tiled, device="cpu")
            if len(y):
                row = y // height
                offsets = self.tile_offsets[images][:, row].add_((y % height * view.images.stride(-2))[:, None])
                mirrored = None if self.mirrored_tiles is None else self.mirrored_tiles[images][:, row]
                view.copy_runs(offsets, width, into[..., : len(y), : self.grid * width], mirrored)
                self._copy_margin(images, rows.start, into[..., : len(y), self.grid * width :])
            self._copy_margin(images, tiled, into[..., len(y) :, :])

    def write_rows(self, out: Tensor) -> bool:
        """Fill the whole output if memory is nothing but rows of tiles, which `index_select` copies as wholes.

        Rows are picked from a fresh copy of their images, which the cache still holds. That copy is put where the last
        images of the output go, which are made last. Each thread has images of its own.

        Returns:
            False, and nothing is written, if memory is not like that or a tile comes from another image.
        """
        # 1. Memory must be rows of tiles: both contiguous, or both channels_last, where a pixel is C elements.
        images, index, grid, (height, width) = self.view.images, self.view.index, self.grid, self.tile
        if self.view.window is not None or out.dtype != images.dtype or self.source_rows is None:
            return False
        if not (images.is_contiguous() and out.is_contiguous()):
            images, out = images.movedim(1, -1), out.movedim(1, -1)
            if images.ndim != 4 or not (images.is_contiguous() and out.is_contiguous()):
                return False
            width *= images.shape[-1]

        # 2. Block size: as many images as the cache holds, and as many row numbers as the scratch memory.
        batch, plane = len(out), height * grid * grid  # rows of a plane
        rows = out[:1].numel() // width  # of an image
        most = max(STAGE_BYTES // out[:1].nbytes, 1) if index is None else 1
        block = min(most, SCRATCH_BYTES // (12 * rows), batch)
        if block == 0 or block * rows >= 2**31:
            return False

        # 3. Several blocks' row numbers at a time; per block, copy its images to the stage and pick rows from there.
        first_row, first_plane = _row_numbers(height, grid, rows // plane, block)
        chunk = max(SCRATCH_BYTES // (12 * plane * block), 1) * block
        source_rows = self.source_rows

        def pick(part: range) -> None:
            stage, staged = out[part.stop - block : part.stop], part.stop - block
            for top in range(part.start, part.stop, chunk):
                end = min(top + chunk, part.stop)
                in_plane = (source_rows[top:end] + first_row).view(-1, 1, plane)
                for first in range(top, end, block):
                    last = min(first + block, part.stop)
                    picked = in_plane[first - top : last - top] + first_plane[: last - first]
                    if last > staged:  # these overwrite the stage itself, so they are picked from the images
                        source = images[first:last] if index is None else images[int(index[first]), None]
                    elif index is None:
                        source = stage.copy_(images[first:last])
                    else:
                        source = torch.index_select(images, 0, index[first:last], out=stage)
                    torch.index_select(source.view(-1, width), 0, picked.flatten(), out=out[first:last].view(-1, width))

        parts = max(min(torch.get_num_threads(), batch // block), 1)
        workers.share(pick, [range(batch * i // parts, batch * (i + 1) // parts) for i in range(parts)])
        return True

    def _write_cropped(self, entry: int, into: Tensor) -> None:
        """Fill one image ``[*lead, H, W]`` plane by plane, with rows picked from its crop."""
        assert self.source_rows is not None
        height, width = self.view.size
        crop = self.view.crop(entry, [0, 0, height, width]).contiguous().view(-1, height * self.grid, self.tile[1])
        first_row, _ = _row_numbers(self.tile[0], self.grid, 1, 1)
        rows = (self.source_rows[entry] + first_row).flatten()
        planes = into if into.ndim == 3 else [plane for frame in into for plane in frame]
        for plane, made in zip(crop, planes, strict=True):
            made.copy_(plane.index_select(0, rows).view(height, width))

    def _copy_margin(self, images: slice, top: int, margin: Tensor) -> None:
        """Fill rows of the margin, from ``top`` on and up to the right edge."""
        if margin.numel():
            height, width = margin.shape[-2:]
            entry, y = (
                torch.arange(*limits, device="cpu")[:, None]
                for limits in ((images.start, images.stop), (top, top + height))
            )
            entry = entry[:, None]
            offsets = self.view.run_offsets(entry, y, self.view.size[1] - width, width)
            self.view.copy_runs(offsets, width, margin, self.view.is_mirrored(entry))


def _copy(source: Tensor, into: Tensor) -> None:
    """Copy ``[*lead, h, w]``; plane by plane where channels come to lie side by side, as loops over them are slow."""
    if into.ndim == 3 and into.stride(0) == 1 and source.stride(0) != 1:
        for plane, made in zip(source, into, strict=True):
            made.copy_(plane)
    else:
        into.copy_(source)


@functools.lru_cache(maxsize=64)
def _row_numbers(height: int, grid: int, planes: int, images: int) -> tuple[Tensor, Tensor]:
    """Numbers of the first row of each row of pixels ``[height, 1]``, and of each plane ``[images, planes, 1]``."""
    with torch.inference_mode(False):  # noqa: FBT003
        planes_before = arange(images * planes).view(images, planes, 1)
        return arange(height)[:, None] * grid, planes_before * (height * grid**2)
