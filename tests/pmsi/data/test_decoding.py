"""Decoding: every kind of file as RGB, resized on both sides, the same whatever the number of threads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import TiffImageFile

from pmsi.data import decoding
from pmsi.data.decoding import collect_images, decode_images, file_stamp, read_image, read_resized
from pmsi.data.pixels import read_size
from tests.helpers.dataset_files import save_image


def test_an_unreadable_file_is_none_or_stops(tmp_path: Path) -> None:
    for n in range(3):
        save_image(tmp_path / f"{n}.png", (n, 0, 0))
    (tmp_path / "1.png").write_text("words")
    paths, calls = sorted(tmp_path.iterdir()), list[tuple[int, int]]()
    images, skipped = collect_images(decode_images(paths, 4, lambda *c: calls.append(c), stop=False), 3, 4)
    assert (images[:, 0, 0, 0].tolist(), skipped) == ([0, 2], [1])
    assert calls == [(1, 3), (2, 3), (3, 3)]
    with pytest.raises(ValueError, match=r"data: cannot read .*1\.png \(.*\); replace it, or leave it out"):
        list(decode_images(paths, 4, lambda *_: None, stop=True))


def test_a_stamp_tells_sizes_and_times_apart(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("abc")
    os.utime(path, ns=(5, 7))
    assert tuple(file_stamp(path)) == (3, 7)
    assert file_stamp(tmp_path / "b") == ()


def test_one_file_is_resized_as_a_batch_is(tmp_path: Path) -> None:
    save_image(tmp_path / "a.png", size=(31, 17))
    (image,) = decode_images([tmp_path / "a.png"], 8, lambda *_: None, stop=True)
    assert image is not None
    assert torch.equal(image, read_resized(tmp_path / "a.png", 8))


def test_every_kind_of_file_becomes_rgb(tmp_path: Path) -> None:
    kinds = {
        "alpha.png": (Image.new("RGBA", (9, 9), (10, 200, 90, 128)), (10, 200, 90)),
        "palette.png": (Image.new("RGB", (9, 9), (10, 200, 90)).quantize(), (10, 200, 90)),
        "grey.png": (Image.new("L", (9, 9), 77), (77, 77, 77)),
        "grey_alpha.png": (Image.new("LA", (9, 9), (77, 5)), (77, 77, 77)),
        "bits.png": (Image.new("1", (9, 9), 1), (255, 255, 255)),
        "deep.png": (Image.fromarray(np.full((9, 9), 77 * 256 + 3, np.uint16)), (77, 77, 77)),
        "cmyk.jpg": (Image.new("CMYK", (9, 9), (245, 55, 165, 0)), (10, 200, 90)),
    }
    for name, (image, wanted) in kinds.items():
        image.save(tmp_path / name)
        pixels = read_image(tmp_path / name)
        assert (pixels.dtype, pixels.shape) == (torch.uint8, (3, 9, 9)), name
        assert (pixels.int() - torch.tensor(wanted)[:, None, None]).abs().max() <= 2, name  # 2: JPEG


def test_both_sides_are_resized(tmp_path: Path) -> None:
    Image.fromarray(np.repeat(np.array([[0, 200]], np.uint8), 30, 1)).save(tmp_path / "wide.png")
    (image,) = decode_images([tmp_path / "wide.png"], 6, lambda *_: None, stop=True)
    assert image is not None
    assert image.shape == (3, 6, 6)
    assert image[0, 0, [0, -1]].tolist() == [0, 200]


def test_the_number_of_threads_changes_nothing(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (24, 33, 47, 3), np.uint8)
    for n, image in enumerate(noise):
        Image.fromarray(image).save(tmp_path / f"{n:02}.png")
    paths, before = sorted(tmp_path.iterdir()), torch.get_num_threads()
    results: list[torch.Tensor] = []
    for count in (0, 1, 2, 7):
        images = decode_images(paths, 16, lambda *_: None, stop=True, workers=count)
        results.append(collect_images(images, 24, 16)[0])
    assert all(torch.equal(results[0], other) for other in results[1:])
    assert torch.get_num_threads() == before


def test_few_images_wait_in_memory(tmp_path: Path) -> None:
    """Whoever takes images slowly finds few decoded ahead."""
    save_image(tmp_path / "a.png")
    begun: list[int] = []

    class Paths(list[Path]):
        def __iter__(self) -> Iterator[Path]:
            for row, path in enumerate(super().__iter__()):
                begun.append(row)
                yield path

    images = decode_images(Paths([tmp_path / "a.png"] * 99), 4, lambda *_: None, stop=True, workers=2)
    for taken in range(1, 21):
        assert next(images) is not None
        assert len(begun) == 16 + taken - 1
    assert sum(1 for _ in images) == 79
    assert len(begun) == 99


def test_every_core_decodes_and_torch_adds_no_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several processes one decodes, while the others wait for it."""
    monkeypatch.setattr("pmsi.runtime.cores.count_cores", lambda: 3)
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    made: list[int] = []
    used: list[int] = []

    class Pool(ThreadPoolExecutor):
        def __init__(self, threads: int) -> None:
            made.append(threads)
            super().__init__(threads)

    def read(path: Path) -> torch.Tensor:
        used.append(torch.get_num_threads())
        return read_image(path)

    monkeypatch.setattr(decoding, "ThreadPoolExecutor", Pool)
    monkeypatch.setattr(decoding, "read_image", read)
    save_image(tmp_path / "a.png")
    before = torch.get_num_threads()
    torch.set_num_threads(5)
    try:
        assert len(list(decode_images([tmp_path / "a.png"] * 9, 4, lambda *_: None, stop=True))) == 9
        assert torch.get_num_threads() == 5
    finally:
        torch.set_num_threads(before)
    assert (made, set(used)) == ([3], {1})
    assert len(list(decode_images([tmp_path / "a.png"] * 2, 4, lambda *_: None, stop=True, workers=0))) == 2
    assert made == [3, 1]


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_photographs_are_upright(tmp_path: Path, suffix: str) -> None:
    """As phones store them: the sensor's pixels, and a number that says how the phone was held."""
    stored = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 16, 3), np.uint8))
    path = tmp_path / f"phone.{suffix}"
    for orientation in range(1, 9):
        tag = Image.Exif()
        tag[0x0112] = orientation
        stored.save(path, exif=tag)
        with Image.open(path) as image:
            wanted = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        found = read_image(path)
        assert np.array_equal(found.permute(1, 2, 0).numpy(), wanted), orientation
        assert read_size(path) == tuple(found.shape[1:]) == ((16, 8) if orientation > 4 else (8, 16)), orientation


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_an_orientation_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    stored = Image.new("RGB", (16, 8))
    for block in (b"Exif\0\0not a TIFF header", b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03"):
        stored.save(tmp_path / "a.jpg", exif=block)
        assert read_image(tmp_path / "a.jpg").shape == (3, 8, 16)


RAMP = np.linspace(0, 65535, 800).reshape(20, 40)
DEEP: dict[str, Any] = {
    "16.png": RAMP.astype(np.uint16),
    "16.tif": RAMP.astype(np.uint16),
    "16.jp2": RAMP.astype(np.uint16),
    "32.tif": RAMP.astype(np.int32),
    "32-of-255.tif": (RAMP / 257).astype(np.int32),
    "float-of-1.tif": (RAMP / 65535).astype(np.float32),
    "float-of-255.tif": (RAMP / 257).astype(np.float32),
    "float-of-65535.tif": RAMP.astype(np.float32),
    "float-rounded.tif": (RAMP / 65535 * 1.0005).astype(np.float32),
    "dark-float.tif": (RAMP / 65535 / 100).astype(np.float32),
}


@pytest.mark.parametrize("name", [*DEEP, "16.pgm", "big-endian.tif", "10-bits.pgm"])
def test_more_than_8_bits_are_scaled(tmp_path: Path, name: str) -> None:
    """Pillow itself clips them, so that all but the darkest pixels are white, or all are black."""
    path = tmp_path / name
    if name == "16.pgm":
        path.write_bytes(b"P5\n40 20\n65535\n" + RAMP.astype(">u2").tobytes())
    elif name == "10-bits.pgm":
        path.write_bytes(b"P5\n40 20\n1023\n" + (RAMP / 65535 * 1023).astype(">u2").tobytes())
    elif name == "big-endian.tif":
        Image.frombytes("I;16B", (40, 20), RAMP.astype(">u2").tobytes()).save(path)
    else:
        Image.fromarray(DEEP[name]).save(path)
    wanted = torch.from_numpy(RAMP / 257 / (100 if name == "dark-float.tif" else 1))
    assert (read_image(path) - wanted).abs().max() <= 1


def test_a_tiff_whose_white_is_zero_is_inverted(tmp_path: Path) -> None:
    """Scanners write it; Pillow inverts 8 bits alone."""
    image = Image.fromarray(RAMP.astype(np.uint16))
    image.save(tmp_path / "a.tif", tiffinfo={262: 0})
    with Image.open(tmp_path / "a.tif") as saved:
        assert isinstance(saved, TiffImageFile)
        assert saved.tag_v2[262] == 0
    assert (read_image(tmp_path / "a.tif") - (255 - torch.from_numpy(RAMP / 257))).abs().max() <= 1


@pytest.mark.parametrize(
    ("values", "dtype", "text"),
    [
        ([[0, 3.5]], np.float32, r"its numbers lie in 0\.\.3\.5, so that white is not known; save it with 8 or 16"),
        ([[-0.5, 0.5]], np.float32, r"lie in -0\.5\.\.0\.5"),
        ([[0.5, np.nan]], np.float32, "nan"),
        ([[0.5, np.inf]], np.float32, "inf"),
        ([[0, 70_000]], np.int32, r"lie in 0\.\.70000"),
        ([[0, 1000]], np.int32, r"lie in 0\.\.1000"),
        ([[-1, 1000]], np.int32, r"lie in -1\.\.1000"),
    ],
)
def test_numbers_without_a_known_white_are_refused(tmp_path: Path, values: Any, dtype: type, text: str) -> None:
    Image.fromarray(np.array(values, dtype)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=f"cannot read .*a.tif .*{text}"):
        read_resized(tmp_path / "a.tif", 8)
