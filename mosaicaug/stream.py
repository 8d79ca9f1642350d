"""`stream_plans`: plans of many steps, drawn and uploaded at once, so that a step costs one launch and no drawing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Generator

from mosaicaug.backends.triton.table import PlanBuffer, make_buffers
from mosaicaug.checks import check_integer
from mosaicaug.plan import Plan


class Drawing(Protocol):
    """Augmentation as far as a stream needs it."""

    last_plan: Plan | None

    @property
    def name(self) -> str:
        """Name of the class."""

    @property
    def _one_ofs(self) -> list[Any]: ...

    def _keep_choices(self, choices: Sequence[torch.Tensor]) -> None: ...

    def sample(self, shape: Sequence[int], *, generator: Generator | None = None) -> Plan:
        """Draw a plan."""


def stream_plans(
    self: Drawing,
    shape: Sequence[int],
    *,
    device: torch.device | str,
    ahead: int = 16,
    generator: Generator | None = None,
) -> Iterator[Plan | PlanBuffer]:
    """Draw plan after plan without end, those of ``ahead`` steps at once: the same as from as many calls of `sample`.

    On a GPU they are uploaded in one transfer, to be carried out on the stream that is current when they are drawn.
    ``last_plan`` is the plan that was handed out last. A setting that changes takes effect with the next plans drawn.

    Args:
        self: the augmentation.
        shape: of the images, as for `sample`.
        device: of the images.
        ahead: steps whose plans are drawn at once, at least 1.
        generator: on the CPU; torch's default one if None.

    Yields:
        `PlanBuffer` for a GPU, and `Plan` elsewhere; `mosaicaug.apply` takes either.

    Raises:
        ValueError: ``ahead`` is below 1, or an argument is refused by `sample`.

    Examples:
        >>> import torch
        >>> from mosaicaug import CutMix, apply
        >>> aug, images, labels = CutMix(), torch.rand(4, 3, 32, 32), torch.arange(4)
        >>> for step, plan in zip(range(3), aug.stream(images.shape, device=images.device)):
        ...     mixed, targets = apply(images, plan), aug.targets(aug.last_plan, labels)
    """
    ahead = check_integer(self.name, "ahead", ahead, 1)
    device = torch.device(device)
    while True:
        drawn: list[tuple[Plan, list[Any]]] = []
        for _ in range(ahead):
            plan = self.sample(shape, generator=generator)
            drawn.append((plan, [one_of.last_choice for one_of in self._one_ofs]))
        plans = [plan for plan, _ in drawn]
        given: Sequence[Plan | PlanBuffer] = make_buffers(plans, device) if device.type == "cuda" else plans
        for one, (plan, choices) in zip(given, drawn, strict=True):
            self.last_plan = plan
            self._keep_choices(choices)
            yield one
