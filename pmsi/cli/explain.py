"""Grad-CAM overlays of photographs, for `pmsi predict --gradcam` and `pmsi serve`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pmsi.deployment.answers import Answer
from pmsi.deployment.classifier import check_maps, explain_answers, open_classifier
from pmsi.report.figures import overlay_heatmap
from pmsi.runtime.files import replace_file

Pictures = Sequence[NDArray[np.uint8]]


def open_overlay(path: Path) -> Callable[[NDArray[np.uint8], str], NDArray[np.uint8]]:
    """Open a network, and return the function that lays Grad-CAM of a class over a picture, uint8 ``[3, h, w]``.

    Raises:
        ValueError: a network whose feature maps cannot be caught.
    """
    classifier, description = open_classifier(path)
    check_maps(classifier)

    def lay_over(picture: NDArray[np.uint8], name: str) -> NDArray[np.uint8]:
        image = torch.from_numpy(picture)[None]
        maps = explain_answers(classifier, image, torch.tensor([description.classes.index(name)]))
        drawn: NDArray[np.uint8] = overlay_heatmap(image, maps)[0].numpy()
        return drawn

    return lay_over


def open_explainer(path: Path) -> Callable[[Pictures, Sequence[Answer], Path], list[NDArray[np.uint8]]]:
    """Open a network, and return the function that writes an overlay for each photograph and returns them.

    Raises:
        ValueError: a network whose feature maps cannot be caught.
    """
    lay_over = open_overlay(path)

    def explain(pictures: Pictures, answers: Sequence[Answer], folder: Path) -> list[NDArray[np.uint8]]:
        drawn = []
        for number, (picture, answer) in enumerate(zip(pictures, answers, strict=True)):
            drawn.append(lay_over(picture, answer.classes[0]))
            file = Image.fromarray(np.ascontiguousarray(drawn[-1].transpose(1, 2, 0)))
            name = f"{number:04}-{answer.path.stem}.png"  # two folders may hold the same name
            replace_file(folder / name, partial(file.save, format="PNG"))
        return drawn

    return explain
