"""Plans as words: what a kernel has to be compiled for, and a buffer that holds one plan after another."""

from __future__ import annotations

import pytest
import torch

from mosaicaug import CutMix, Jigsaw, MixUp, Plan, PlanBuffer, RecursiveMosaic, SnapMix, apply
from mosaicaug.backends.triton.table import make_buffers, pack
from mosaicaug.contents import Overlay
from tests.helpers.oracle import number_pixels

triton = pytest.importorskip("triton")


SHAPE = (4, 3, 24, 32)


@pytest.mark.parametrize(
    ("plan", "overlay", "blend"),
    [
        (RecursiveMosaic(2).sample(SHAPE), Overlay.NONE, False),
        (CutMix().sample(SHAPE, generator=torch.Generator().manual_seed(1)), Overlay.IN_PLACE, False),
        (MixUp().sample(SHAPE), Overlay.WHOLE, True),
        (SnapMix().sample(SHAPE), Overlay.RESAMPLED, False),
        (Plan.identity(4, SHAPE[-2:]), Overlay.NONE, False),
    ],
)
def test_a_kernel_is_compiled_for_what_the_plan_uses(plan: Plan, overlay: Overlay, *, blend: bool) -> None:
    table = pack([plan])
    assert (table.overlay, table.blend) == (overlay, blend)
    assert table.grids == ((4,) if plan.grid == 4 else ())


def test_plan_buffer_takes_one_plan_after_another(kernel_device: torch.device) -> None:
    images = number_pixels(SHAPE).to(kernel_device)
    for aug in (RecursiveMosaic(2), Jigsaw(4), CutMix(), MixUp(), SnapMix()):
        buffer = PlanBuffer(aug.sample(SHAPE, generator=torch.Generator().manual_seed(0)), kernel_device)
        words = buffer.table.words
        for seed in range(4):
            plan = aug.sample(SHAPE, generator=torch.Generator().manual_seed(seed))
            assert torch.equal(apply(images, buffer.copy_(plan)), apply(images, plan, backend="torch"))
        assert buffer.table.words is words
        still = Plan.identity(4, SHAPE[-2:]).refine(aug.last_plan.grid if aug.last_plan else 1)
        assert torch.equal(apply(images, buffer.copy_(still)), images)


def test_plan_buffer_refuses_what_its_kernel_cannot_do() -> None:
    buffer = PlanBuffer(CutMix().sample(SHAPE, generator=torch.Generator().manual_seed(1)), "cpu")
    for plan in (
        MixUp().sample(SHAPE),
        SnapMix().sample(SHAPE),
        RecursiveMosaic(2).sample(SHAPE),
        Plan.identity(5, SHAPE[-2:]),
        Plan.identity(4, (24, 24)),
    ):
        with pytest.raises(ValueError, match=r"PlanBuffer: holds 4 images of \(24, 32\) px.*got"):
            buffer.copy_(plan)
    still = PlanBuffer(Plan.identity(4, SHAPE[-2:]).refine(4), "cpu")
    with pytest.raises(ValueError, match=r"PlanBuffer: holds .* no moved tiles .* got .* 4x4 tiles"):
        still.copy_(RecursiveMosaic(2).sample(SHAPE))
    with pytest.raises(ValueError, match=r"apply: a PlanBuffer needs the Triton backend"):
        apply(number_pixels(SHAPE), buffer)


def test_words_hold_the_plans_one_after_another() -> None:
    plans = [Jigsaw(n, permutation="cyclic").sample((2, 3, 12, 12)) for n in (2, 3)]
    table = pack(plans)
    assert (table.plans, table.batch, table.outputs, table.grids, table.grid) == (2, 2, 4, (2, 3), 0)
    for number, plan in enumerate(plans):
        grid, begin = table.words[2 * number : 2 * number + 2].tolist()
        assert grid == plan.grid
        assert torch.equal(table.words[begin:][: plan.tiles.numel()], plan.tiles.flatten())


def test_words_hold_the_fields_of_overlays() -> None:
    plan = MixUp().sample(SHAPE)
    table = pack([plan])
    fields = table.words[table.overlay_at :]
    assert torch.equal(fields[:4], plan.overlay)
    assert torch.equal(fields[4:8].view(torch.float32), plan.opacity)
    assert torch.equal(fields[8:24].view(4, 4), plan.from_box)
    assert torch.equal(fields[24:40].view(4, 4), plan.to_box)


def test_buffers_share_an_upload_and_each_begins_at_16_bytes() -> None:
    plans = [RecursiveMosaic(2).sample((batch, 1, 8, 8)) for batch in (1, 2, 3)]
    buffers = make_buffers(plans, torch.device("cpu"))
    assert [buffer.plan for buffer in buffers] == plans
    base = buffers[0].table.words.untyped_storage().data_ptr()
    for buffer, plan in zip(buffers, plans, strict=True):
        words = buffer.table.words
        assert torch.equal(words, pack([plan]).words)
        assert words.untyped_storage().data_ptr() == base
        assert words.storage_offset() % 4 == 0


def test_a_buffer_takes_the_words_of_a_later_plan() -> None:
    first, second = (SnapMix().sample(SHAPE, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    buffer = PlanBuffer(first, "cpu")
    words = buffer.table.words
    assert buffer.copy_(second) is buffer
    assert buffer.table.words is words
    assert buffer.plan is second
    assert torch.equal(words, pack([second]).words)
    still = Plan.identity(len(first), first.size)
    assert torch.equal(buffer.copy_(still).table.words, pack([still], overlay=Overlay.RESAMPLED).words)
