"""Session of a command: the launched Fabric, its processes, and whether networks are compiled."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from lightning_fabric import Fabric

from pmsi.runtime.devices import open_fabric
from pmsi.runtime.processes import Processes


@dataclass(frozen=True)
class Session:
    """Device, precision, processes, and compilation or CUDA graphs of one command.

    Args:
        fabric: device, precision and processes, launched; by default the best device of this machine.
        compile: network and loss of every phase are compiled: minutes at the start for faster steps.
        graphs: on one GPU, a mini-batch is trained as one CUDA graph; see `pmsi.training.step.make_steps`.
    """

    fabric: Fabric = field(default_factory=open_fabric)
    compile: bool = False
    graphs: bool = True

    @cached_property
    def processes(self) -> Processes:
        """Processes that share each mini-batch and each test."""
        return Processes(self.fabric)
