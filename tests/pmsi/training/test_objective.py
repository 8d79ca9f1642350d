"""The loss of a phase: its precision, and that compiled phases train as eager ones."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mosaicaug import Targets
from pmsi.runtime.devices import input_dtype, open_fabric
from pmsi.training.objective import Objective, make_objective
from tests.helpers.small_run import RECIPE, Watch, make_session, make_trainer


@pytest.mark.usefixtures("small_backbone")
def test_bf16_computes_in_bf16_and_keeps_label_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = make_session("bf16")
    assert input_dtype(session.fabric) == torch.bfloat16
    assert input_dtype(open_fabric("cpu")) == torch.float32
    trainer = make_trainer(tmp_path, replace(RECIPE, augmentation="mixup", mixup_p=1.0, per="sample"), session=session)
    seen: dict[str, Any] = {}
    loss = trainer.network.loss

    def listen(images: Tensor, targets: Tensor | Targets, output: int | None = None) -> Tensor:
        seen.update(images=images.dtype, targets=targets)
        return loss(images, targets, output)

    monkeypatch.setattr(trainer.network, "loss", listen)
    trainer.network.get_submodule("smooth.0").register_forward_hook(lambda _, __, out: seen.update(inside=out.dtype))
    trainer.run(Watch())
    assert (seen["images"], seen["inside"]) == (torch.bfloat16, torch.bfloat16)
    weights = seen["targets"].weight_b
    assert weights.dtype == torch.float32
    assert not torch.equal(weights, weights.bfloat16().float())
    assert {value.dtype for value in trainer.network.state_dict().values()} == {torch.float32, torch.int64}
    assert all(math.isfinite(one) for one in trainer.history[-1]["losses"])


def test_every_phase_may_have_graphs_of_its_own_size(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[dict[str, Any]] = []

    def compile_it(module: nn.Module, **settings: Any) -> nn.Module:
        given.append(settings)
        return module

    monkeypatch.setattr(torch, "compile", compile_it)
    network: Any = nn.Linear(2, 2)
    limits = []
    with torch._dynamo.config.patch(recompile_limit=8):
        for phases in (1, 6, 2):
            assert isinstance(make_objective(network, phases=phases, compiled=True), Objective)
            limits.append(torch._dynamo.config.recompile_limit)
    assert limits == [8, 24, 24]
    assert given == [{"dynamic": False}] * 3
    assert isinstance(make_objective(network, phases=6, compiled=False), Objective)
    assert len(given) == 3


@pytest.mark.usefixtures("small_backbone")
@pytest.mark.parametrize(
    ("method", "backend"), [("rmg", "aot_eager"), pytest.param("cutmix", "inductor", marks=pytest.mark.slow)]
)
def test_compiled_phases_train_as_eager_ones(
    tmp_path: Path, method: Any, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses of a first epoch within 1e-4: dropout, whose draws a compiler makes its own way, is off.

    Generating code for a CPU takes a minute: slow, and one method does.
    """
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    recipe = replace(RECIPE, augmentation=method, dropout=0.0, epochs=1, lr_backbone=1e-4, lr_new=1e-3)
    eager, compiled = (make_trainer(tmp_path / str(c), recipe, session=make_session(compile=c)) for c in (False, True))
    for trainer in (eager, compiled):
        trainer.run(Watch())
    assert compiled.history[0]["losses"] == pytest.approx(eager.history[0]["losses"], rel=1e-4)
    assert compiled.objective is not compiled.network
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert graphs >= 4  # one for each phase, at the least
