"""Grad-CAM (Selvaraju et al. 2017) of the stages' feature maps, as in Fig. 4 of Wu et al. 2021."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pmsi.models.base import Logits

Output = Literal["concat", "mix"] | int


def grad_cam(
    network: nn.Module, images: Tensor, *, output: Output = "mix", classes: Tensor | None = None
) -> list[Tensor]:
    """Grad-CAM of every stage's feature maps for one class per image.

    A map is ReLU(sum_c a_c A_c), where a_c is the mean over positions of the gradient of the class's logit by channel c
    of A (Eq. 1 and 2 of Selvaraju et al.), divided by its maximum; it is 0 throughout where no channel raises the
    logit. The network runs in eval mode and is left as it was: modes, hooks, gradients and statistics.

    Args:
        network: gives `Logits`, and feature maps by ``network.backbone(images, count)``; for instance a `PMSI`.
        images: network inputs, float ``[B, 3, H, W]``, on the network's device.
        output: whose logit: "concat", "mix", or a stage by its place in ``Logits.stages`` (-1 is the deepest).
        classes: int64 ``[B]``; None takes the class that this output predicts.

    Returns:
        Maps ``[B, h, w]`` in 0..1, for each of the network's stages, shallow to deep (Fig. 4: N-2, N-1, N).

    Raises:
        ValueError: no such output, or classes that do not fit the images or the logits.

    >>> from pmsi.models.backbones import make_mobilenet_v2
    >>> from pmsi.models.pmsi import PMSI
    >>> maps = grad_cam(PMSI(make_mobilenet_v2(), num_classes=5), torch.rand(2, 3, 64, 64))
    >>> [tuple(one.shape) for one in maps]
    [(2, 8, 8), (2, 4, 4), (2, 2, 2)]
    """
    with torch.inference_mode(mode=False), torch.enable_grad(), _capture_maps(network) as maps:
        logits = _pick_logits(network(images.detach().clone().requires_grad_()), output)
        if classes is None:
            classes = logits.argmax(1)
        elif classes.shape != logits.shape[:1] or not 0 <= classes.min() <= classes.max() < logits.shape[1]:
            raise ValueError(
                f"grad_cam: classes must be {len(logits)} numbers in 0..{logits.shape[1] - 1}, got {classes.tolist()}"
            )
        score = logits.gather(1, classes.to(logits.device)[:, None]).sum()  # images do not touch in eval mode
        gradients = torch.autograd.grad(score, maps, materialize_grads=True)
    found = []
    for activations, gradient in zip(maps, gradients, strict=True):
        weights = gradient.mean((2, 3), keepdim=True)  # [B, C, 1, 1]
        heat = (weights * activations.detach()).sum(1).relu()  # [B, h, w]
        peak = heat.amax((1, 2), keepdim=True)
        found.append(torch.where(peak > 0, heat / peak, 0))
    return found


def catches_maps(network: nn.Module) -> bool:
    """Test for a network whose feature maps `grad_cam` can catch: it calls its backbone as a whole."""
    called = False

    def note(*_: object) -> None:
        nonlocal called
        called = True

    backbone = network.backbone
    assert isinstance(backbone, nn.Module)
    handle = backbone.register_forward_hook(note)
    was_training = network.training
    first = next(network.parameters())
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, 3, 64, 64, device=first.device, dtype=first.dtype))
    finally:
        handle.remove()
        network.train(was_training)
    return called


@contextmanager
def _capture_maps(network: nn.Module) -> Iterator[list[Tensor]]:
    """Capture the feature maps of the next forward pass, in eval mode; hook and modes are put back in any case."""
    maps: list[Tensor] = []
    modes = {module: module.training for module in network.modules()}

    def keep(_: nn.Module, __: Any, found: list[Tensor]) -> None:
        maps.extend(found)

    backbone = network.backbone
    assert isinstance(backbone, nn.Module)
    handle = backbone.register_forward_hook(keep)
    network.eval()
    try:
        yield maps
    finally:
        handle.remove()
        for module, mode in modes.items():
            module.training = mode


def _pick_logits(logits: Logits, output: Output) -> Tensor:
    """Logits ``[B, K]`` of one output."""
    if isinstance(output, int) and -len(logits.stages) <= output < len(logits.stages):
        return logits.stages[output]
    if output == "mix":
        return logits.mix
    if output == "concat":
        return logits.concat
    raise ValueError(f"grad_cam: output must be 'concat', 'mix' or one of {len(logits.stages)} stages, got {output!r}")
