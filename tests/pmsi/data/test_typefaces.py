"""The embedded data set: deterministic, balanced, readable, and different wherever it should be."""

from __future__ import annotations

import math
import socket
import string
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import matplotlib
import pytest
import torch
from PIL import ImageFont
from torch import Tensor

from pmsi.data import typefaces
from pmsi.data.typefaces import TYPEFACES, Specimen, draw_specimen, render_specimen, render_typefaces

SIDE = 48


def plain(*words: str) -> Specimen:
    return Specimen(words, 0.9, 0.0, 0.0, (0.5, 0.5), (0, 0, 0), (255, 255, 255))


def luma(images: Tensor) -> Tensor:
    return (images.double() * torch.tensor([0.299, 0.587, 0.114]).double()[:, None, None]).sum(1)


def count_distinct(images: Tensor) -> int:
    return len({image.numpy().tobytes() for image in images})


def test_has_twelve_balanced_classes() -> None:
    (train, train_labels), (test, test_labels) = render_typefaces(SIDE, train_per_class=3, test_per_class=2)
    assert len(TYPEFACES) == 12
    assert train.shape == (36, 3, SIDE, SIDE)
    assert test.shape == (24, 3, SIDE, SIDE)
    for images, labels, count in ((train, train_labels, 3), (test, test_labels, 2)):
        assert images.dtype == torch.uint8
        assert images.is_contiguous()
        assert labels.dtype == torch.int64
        assert labels.bincount().tolist() == [count] * 12


def test_is_a_function_of_seed_split_class_and_number() -> None:
    few, many = (
        render_typefaces(SIDE, train_per_class=2, test_per_class=1),
        render_typefaces(SIDE, train_per_class=3, test_per_class=2),
    )
    for (images, _), (more, _) in zip(few, many, strict=True):
        count = len(images) // 12
        assert torch.equal(images.view(12, count, -1), more.view(12, count + 1, -1)[:, :count])
    again = render_specimen("DejaVu Serif", draw_specimen("DejaVu Serif", "train", 1), SIDE)
    assert torch.equal(few.train[0][4 * 2 + 1], again)


def test_all_images_differ_in_and_across_splits_and_seeds() -> None:
    images = [
        split[0]
        for seed in (0, 1, 2**40)
        for split in render_typefaces(SIDE, train_per_class=5, test_per_class=5, seed=seed)
    ]
    assert count_distinct(torch.cat(images)) == 3 * 2 * 60


def test_draws_of_train_and_test_never_coincide() -> None:
    draws = [
        draw_specimen(typeface, split, number)
        for typeface in TYPEFACES
        for split in ("train", "test")
        for number in range(60)
    ]
    assert len(set(draws)) == len(draws)


@pytest.mark.parametrize("typeface", TYPEFACES)
def test_shows_the_same_picture_at_any_size(typeface: str) -> None:
    specimen = draw_specimen(typeface, "test", 7)
    small, large = (render_specimen(typeface, specimen, side)[:1].float() for side in (64, 256))
    shrunk = torch.nn.functional.avg_pool2d(large, 4)
    likeness = torch.corrcoef(torch.stack([small.flatten(), shrunk.flatten()]))[0, 1]
    assert likeness > 0.6  # hinting moves letters by up to a pixel


def test_ink_stands_out_from_paper() -> None:
    for typeface in TYPEFACES:
        for number in range(50):
            specimen = draw_specimen(typeface, "train", number)
            assert min(specimen.paper) - max(specimen.ink) >= 177
    images, _ = render_typefaces(64, train_per_class=4, test_per_class=1).train
    lumas = luma(images).flatten(1)
    assert (lumas.amax(1) - lumas.amin(1)).min() > 80
    inked = (lumas < (lumas.amax(1, keepdim=True) + lumas.amin(1, keepdim=True)) / 2).double().mean(1)
    assert inked.min() > 0.03  # a page with something on it,
    assert inked.max() < 0.4  # and not a blot


@pytest.mark.parametrize("words", [("Quartz", "Rhythm", "jazz"), ("HAMBURG",), ("agency",)])
def test_every_typeface_sets_the_same_words_its_own_way(words: tuple[str, ...]) -> None:
    images = torch.stack([render_specimen(typeface, plain(*words), 64) for typeface in TYPEFACES])
    assert count_distinct(images) == 12
    apart = (images[:, None].float() - images[None].float()).abs().mean((2, 3, 4))
    assert apart[~torch.eye(12, dtype=torch.bool)].min() > 2  # of 255


@pytest.mark.parametrize("typeface", TYPEFACES)
def test_every_letter_and_digit_has_its_own_glyph(typeface: str) -> None:
    path = Path(matplotlib.get_data_path(), "fonts", "ttf", TYPEFACES[typeface])
    font = ImageFont.truetype(path, 60, layout_engine=ImageFont.Layout.BASIC)
    glyphs = [bytes(font.getmask(letter)) for letter in (*string.ascii_letters, *string.digits, "\uffff")]
    assert all(any(glyph) for glyph in glyphs[:-1])
    assert len(set(glyphs)) == len(glyphs)  # none is the box of a missing glyph


def test_names_are_those_that_the_fonts_have() -> None:
    for name, file in TYPEFACES.items():
        font = ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", file), 9)
        own = " ".join(filter(None, font.getname())).removesuffix(" Book")
        if own.startswith("DejaVu"):  # the others' own names are short
            assert own == name


def test_draws_are_those_of_every_version() -> None:
    """Figures of these images are compared across versions."""
    assert draw_specimen("STIX General", "test", 3, seed=2) == Specimen(
        words=("MEADOW", "BRICK", "ECHO"),
        width=0.8010707108673848,
        rotation=1.8023020171175705,
        slant=-0.02081657412384173,
        centre=(0.5239081447559973, 0.46441590170463043),
        ink=(33, 41, 23),
        paper=(236, 244, 245),
    )


def test_words_use_the_whole_alphabet_and_all_cases() -> None:
    words = [word for number in range(200) for word in draw_specimen("DejaVu Sans", "train", number).words]
    assert {letter.lower() for word in words for letter in word} == set(string.ascii_lowercase)
    assert {word.isupper() for word in words} == {word.istitle() for word in words} == {True, False}
    assert {len(word) for word in words} == {4, 5, 6}


def test_words_stay_on_the_page() -> None:
    for typeface in TYPEFACES:
        for number in range(10):
            specimen = draw_specimen(typeface, "test", number)
            image = luma(render_specimen(typeface, specimen, 64)[None])[0]
            edge = torch.cat([image[0], image[-1], image[:, 0], image[:, -1]])
            assert (edge < image.amax() - 40).double().mean() < 0.1


def test_leans_and_turns_as_asked() -> None:
    upright = plain("HHHH")
    assert trend(replace(upright, slant=0.2), along=0) < trend(upright, along=0) - 0.1  # the top, small y, goes right
    assert trend(replace(upright, rotation=10), along=1) == pytest.approx(-math.tan(math.radians(10)), abs=0.03)
    assert trend(upright, along=1) == pytest.approx(0, abs=0.01)


def test_lines_are_set_below_each_other() -> None:
    """Three words of capitals, 1.15 em from line to line, around the middle of the page."""
    dark = 255 - render_specimen("DejaVu Sans", plain("HHHHH", "HHHHH", "HHHHH"), 200)[0].int()
    rows = (dark.sum(1) > 0).nonzero().flatten()
    starts = [int(row) for row in rows if row - 1 not in rows]
    assert len(starts) == 3
    assert starts[2] - starts[1] == pytest.approx(starts[1] - starts[0], abs=1)
    assert (rows[0] + rows[-1]) / 2 == pytest.approx(100, abs=3)
    assert 30 < starts[1] - starts[0] < 60


def test_leaning_comes_before_turning() -> None:
    specimen = replace(plain("H"), slant=0.5, rotation=40.0, centre=(0.25, 0.75))
    xx, xy, x, yx, yy, y = typefaces._affine(specimen, 100)
    turn = math.radians(40)
    rotation = torch.tensor([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    matrix = torch.tensor([[1, 0.5], [0, 1]]) @ rotation
    torch.testing.assert_close(torch.tensor([[xx, xy], [yx, yy]]), matrix)
    middle = matrix @ torch.tensor([75.0, 25.0]) + torch.tensor([x, y])
    torch.testing.assert_close(middle, torch.tensor([50.0, 50.0]))


def trend(specimen: Specimen, *, along: int) -> float:
    """Slope of the ink's other coordinate along axis 0 (y) or 1 (x)."""
    ink = 255 - render_specimen("DejaVu Sans", specimen, 96)[0].double()
    places = torch.meshgrid(*[torch.arange(96.0).double() - 47.5] * 2, indexing="ij")
    return float((ink * places[0] * places[1]).sum() / (ink * places[along] ** 2).sum())


def test_progress_counts_every_image() -> None:
    calls: list[tuple[str, int, int]] = []
    render_typefaces(16, train_per_class=2, test_per_class=1, progress=lambda *call: calls.append(call))
    assert [call[1:] for call in calls] == [(n, 24) for n in range(1, 25)] + [(n, 12) for n in range(1, 13)]
    assert ["train" in calls[0][0], "test" in calls[-1][0]] == [True, True]


def test_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    render_typefaces(16, train_per_class=1, test_per_class=1)


def test_counts_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="typefaces: train_per_class must be at least 1, got 0"):
        render_typefaces(16, train_per_class=0)
    with pytest.raises(ValueError, match="typefaces: test_per_class must be at least 1, got -1"):
        render_typefaces(16, test_per_class=-1)


def test_size_and_seed_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="typefaces: resize must be at least 1, got 0"):
        render_typefaces(0)
    with pytest.raises(ValueError, match="typefaces: seed must be 0 or more, got -1"):
        render_typefaces(16, seed=-1)


def test_a_missing_font_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(matplotlib, "get_data_path", lambda: str(tmp_path))
    typefaces._load_ruler.cache_clear()
    with pytest.raises(FileNotFoundError, match=r"matplotlib's font .*DejaVuSans\.ttf is missing"):
        render_typefaces(16)
