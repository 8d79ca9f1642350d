"""Classifier: a trained network that takes bytes and gives calibrated probabilities, ready to be exported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from pmsi.data.preprocess import describe_preprocessing
from pmsi.deployment.description import KEY, Description, name_damage, read_description
from pmsi.evaluation.gradcam import catches_maps, grad_cam
from pmsi.models.base import Logits
from pmsi.models.registry import make_network
from pmsi.models.trained import Trained, open_trained, read_recipe

Output = Literal["mix", "concat"]


class Classifier(nn.Module):
    """Normalisation, network, temperature and softmax in one module.

    Args:
        network: gives `Logits`.
        mean, std: of each channel's bytes.
        temperature: divides the logits.
        output: which logits.
    """

    def __init__(
        self,
        network: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        temperature: float = 1.0,
        output: Output = "mix",
    ) -> None:
        super().__init__()
        self.network, self.temperature, self.output = network, temperature, output
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("scale", 1 / torch.tensor(std).view(1, 3, 1, 1))

    def normalise(self, images: Tensor) -> Tensor:
        """Bytes ``[B, 3, H, W]`` to the network's input, by the arithmetic of `mosaicaug.apply`."""
        return (images.float() - self.mean) * self.scale

    def forward(self, images: Tensor) -> Tensor:
        """Bytes ``[B, 3, H, W]`` to probabilities ``[B, K]``."""
        logits: Logits = self.network(self.normalise(images))
        chosen = logits.mix if self.output == "mix" else logits.concat
        return torch.softmax(chosen / self.temperature, 1)


def make_classifier(trained: Trained, path: Path, output: Output | None = None) -> tuple[Classifier, Description]:
    """Make the classifier of a checkpoint, in eval mode, and its description.

    Args:
        trained: the checkpoint at ``path``.
        output: "mix" or "concat"; None takes Mix, and Concat where the stages are not trained.

    Raises:
        ValueError: Mix of stages that are not trained.
    """
    recipe = trained.recipe
    chosen: Output = output or ("mix" if recipe.progressive else "concat")
    if chosen == "mix" and not recipe.progressive:
        raise ValueError(f"--output mix: the stages of {path} are not trained; take concat")
    shown = trained.about.get("preprocessing") or describe_preprocessing(recipe)
    temperature = trained.temperature or 1.0
    description = Description(
        classes=trained.classes,
        resize=shown["resize"],
        filter=shown["filter"],
        crop=shown["crop"],
        mean=tuple(shown["mean"]),
        std=tuple(shown["std"]),
        output=chosen,
        temperature=temperature,
        precision="float32",
        data=trained.identity.get("data", "unknown"),
        recipe=recipe.to_dict(),
        weights=trained.identity.get("weights", "unknown"),
        written_by=trained.written_by or "an earlier version of pmsi",
        versions=dict(trained.about.get("versions", {})),
    )
    classifier = Classifier(trained.network, description.mean, description.std, temperature, chosen)
    return classifier.eval().requires_grad_(requires_grad=False), description


def open_classifier(path: Path) -> tuple[Classifier, Description]:
    """Open a checkpoint, or tensors that were exported as ``.safetensors``.

    Raises:
        FileNotFoundError: no such file. ValueError: it is damaged, none of ours, or of another version.
    """
    if path.suffix != ".safetensors":
        return make_classifier(open_trained(path), path)
    from safetensors import safe_open

    try:
        with safe_open(path, "pt") as file:
            metadata: Mapping[str, str] = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except Exception as error:  # it has kinds of its own
        raise name_damage(path, error) from error
    description = read_description(metadata.get(KEY), str(path))
    recipe = read_recipe(description.recipe, "", written_by=description.written_by)
    network = make_network(recipe, len(description.classes)).eval()
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} was written by {description.written_by}, and does not fit here: {reason}") from error
    output: Output = "mix" if description.output == "mix" else "concat"
    classifier = Classifier(network, description.mean, description.std, description.temperature, output)
    return classifier.eval().requires_grad_(requires_grad=False), description


def check_maps(classifier: Classifier) -> None:
    """ValueError for a network whose feature maps cannot be caught, and so not explained."""
    if not catches_maps(classifier.network):
        raise ValueError("Grad-CAM: the feature maps of this network cannot be caught; ask one of another kind")


def explain_answers(classifier: Classifier, images: Tensor, classes: Tensor) -> Tensor:
    """Grad-CAM ``[B, h, w]`` of the last feature map for one class of each image, bytes ``[B, 3, H, W]``.

    Raises:
        ValueError: a network whose feature maps cannot be caught.
    """
    check_maps(classifier)
    return grad_cam(classifier.network, classifier.normalise(images), output=classifier.output, classes=classes)[-1]
