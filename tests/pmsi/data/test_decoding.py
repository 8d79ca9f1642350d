"""Decoding: every kind of file as RGB, resized on both sides, the same whatever the number of threads."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pmsi.data.decoding import collect_images, decode_images, file_stamp, read_image, read_resized
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


def test_the_number_of_threads_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (24, 33, 47, 3), np.uint8)
    for n, image in enumerate(noise):
        Image.fromarray(image).save(tmp_path / f"{n:02}.png")
    paths, before = sorted(tmp_path.iterdir()), torch.get_num_threads()
    results: list[torch.Tensor] = []
    for count in (1, 2, 7):
        monkeypatch.setattr(os, "cpu_count", lambda count=count: count)
        results.append(collect_images(decode_images(paths, 16, lambda *_: None, stop=True), 24, 16)[0])
    assert all(torch.equal(results[0], other) for other in results[1:])
    assert torch.get_num_threads() == before
