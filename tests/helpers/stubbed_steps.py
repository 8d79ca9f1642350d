"""Steps of one augmentation in a process whose driver launches nothing; prints launches and operations as JSON.

Started by `bench.gpu.stub_driver.run_stubbed`.
"""

from __future__ import annotations

import json

import torch

from bench.gpu.stub_driver import use_stub
from bench.host import Operations
from mosaicaug import CutMix, Plan, PlanBuffer, apply


def main() -> None:
    """Launch anew, again with other pixels, and by a plan in fixed memory; count operations of kept launches."""
    launches = use_stub()
    aug, steps, operations = CutMix(), 0, {}
    for turn in range(2):
        images = torch.full((4, 3, 32, 32), float(turn))
        out = torch.empty_like(images)
        plans: dict[str, Plan | PlanBuffer] = {"apply": aug.sample(images.shape)}
        plans["stream_step"] = PlanBuffer(aug.sample(images.shape), "cpu")
        for name, plan in plans.items():
            with Operations() as counted:  # type: ignore[no-untyped-call]
                apply(images, plan, out=out, backend="triton")
            operations[name] = counted.count
            steps += 1
    print(json.dumps({"launches": launches.value, "steps": steps, "operations": operations}))


if __name__ == "__main__":
    main()
