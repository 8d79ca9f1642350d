"""Playground: each picture is what its line of code makes, and its plan says where every pixel came from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import mosaicaug
from mosaicaug import apply
from pmsi.deployment.serve import playground
from pmsi.deployment.serve.playground import Dials, make_cards
from pmsi.deployment.serve.uploads import read_link

SIDE = 32


def make_photo(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 255, (3, SIDE, SIDE), dtype=np.uint8)


def test_every_card_shows_what_its_code_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []

    def keep(pixels: NDArray[np.uint8]) -> str:
        seen.append(torch.from_numpy(pixels))
        return "link"

    monkeypatch.setattr(playground, "make_link", keep)
    photo, partner, dials = make_photo(0), make_photo(1), Dials(r=2, n=4, alpha=2, beta=3, seed=5)
    cards = make_cards(photo, partner, dials)
    assert [card["name"] for card in cards] == ["RecursiveMosaic", "Jigsaw", "CutMix", "MixUp", "SnapMix"]
    images = torch.from_numpy(np.stack([photo, partner]))
    for card, shown in zip(cards, seen, strict=True):
        names = {"images": images, "labels": torch.arange(2), "maps": torch.rand(2, 3, 3)}
        exec(f"{card['import']}\n{card['code']}", names)  # it runs as it is copied
        augmentation = getattr(mosaicaug, card["name"])(**read_arguments(card["code"]))
        generator = torch.Generator().manual_seed(5)
        while (plan := augmentation.sample(images.shape, generator=generator)).overlay[0] != augmentation.mixes:
            pass
        assert torch.equal(shown, apply(images, plan)[0])
        found = card["plan"]
        assert found["tiles"] == plan.tiles[0].tolist()
        if augmentation.mixes:
            assert found["overlay"]["to"] == plan.to_box[0].tolist()
            assert len(card["weights"]) == 2
        else:
            assert found["overlay"] is card["weights"] is None


def read_arguments(code: str) -> dict[str, int]:
    name, value = code.split("(")[1].split(")")[0].split("=")
    return {name: int(value)}


def test_a_photograph_by_itself_is_mixed_with_its_mirror_image() -> None:
    photo = np.zeros((3, SIDE, SIDE), np.uint8)
    photo[:, :, : SIDE // 2] = 200
    (mixed,) = [card for card in make_cards(photo, None, Dials()) if card["name"] == "MixUp"]
    share = mixed["plan"]["overlay"]["opacity"]
    pixels = read_link(mixed["picture"]).pixels
    assert abs(pixels[:, : SIDE // 2 - 2].mean() - 200 * (1 - share)) < 3
    assert abs(pixels[:, SIDE // 2 + 2 :].mean() - 200 * share) < 3
    assert mixed["weights"] == pytest.approx([1 - share, share])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"r": 6}, r"r must lie in 0\.\.5, got 6"),
        ({"n": 2.5}, "n must be a whole number, got 2.5"),
        ({"alpha": 0}, r"alpha must lie in 0\.05\.\.10\.0, got 0"),
        ({"alpha": float("nan")}, "alpha must lie in"),
        ({"beta": "much"}, "beta must be a number, got 'much'"),
        ({"seed": True}, "seed must be a whole number, got True"),
    ],
)
def test_dials_out_of_range_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Dials.from_values(values)
    assert Dials.from_values({}) == Dials()
