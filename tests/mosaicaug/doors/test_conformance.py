"""One seed, one batch of pixels and one set of labels, whichever door the images come through.

The reference is plain torch. Copies agree to the bit everywhere. So do blends and resampling, but for DALI's: its
arithmetic may round a uint8 pixel to the neighbouring level, its float16 MixUp one step off, and its warp finds
positions to no more than 1/256 px, which moves SnapMix's floating pixels by up to 0.003 of white.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from mosaicaug import Augmentation, CutMix, Jigsaw, MixUp, RecursiveMosaic, SnapMix, Targets, apply, cross_entropy

SEED, BATCH, SIZE = 11, 6, (26, 35)  # a margin for every grid
AUGMENTATIONS: dict[str, Callable[[], Augmentation]] = {
    "recursive_mosaic": lambda: RecursiveMosaic(r=3),
    "jigsaw": lambda: Jigsaw(n=4),
    "cutmix": CutMix,
    "mixup": MixUp,
    "snapmix": lambda: SnapMix(beta=5.0),
}
COPIES = ("recursive_mosaic", "jigsaw", "cutmix")
DTYPES = [torch.uint8, torch.float16, torch.float32]


class Batch(NamedTuple):
    """Input or output of a door: targets are None where labels are computed elsewhere."""

    images: Tensor
    targets: Any


def make_batch(dtype: torch.dtype, channels_last: bool) -> Batch:
    images = torch.randint(0, 256, (BATCH, 3, *SIZE), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    images = images if dtype == torch.uint8 else (images / 255).to(dtype)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return Batch(images.contiguous(memory_format=layout), torch.tensor([3, 1, 4, 1, 5, 0]))


def make_maps() -> Tensor:
    return torch.rand(BATCH, 7, 7, generator=torch.Generator().manual_seed(2))


def look(images: Tensor, labels: Tensor) -> Tensor:  # noqa: ARG001
    return make_maps().to(images.device)


def go_through_torch(name: str, given: Batch) -> Batch:
    """Call the slow reference backend, with a generator."""
    aug, generator = AUGMENTATIONS[name](), torch.Generator().manual_seed(SEED)
    plan = aug.sample(given.images.shape, generator=generator)
    made = apply(given.images.clone().requires_grad_(given.images.is_floating_point()), plan, backend="torch")
    return Batch(made.detach(), aug.targets(plan, given.targets, maps=make_maps()))


def go_through_class(name: str, given: Batch) -> Batch:
    torch.manual_seed(SEED)
    return Batch(*AUGMENTATIONS[name]()(given.images, given.targets, maps=make_maps()))


def go_through_triton(name: str, given: Batch) -> Batch:
    """Call the Triton backend: on a GPU where there is one, in Triton's interpreter otherwise."""
    pytest.importorskip("triton")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    aug = AUGMENTATIONS[name]()
    torch.manual_seed(SEED)
    plan = aug.sample(given.images.shape)
    made = apply(given.images.to(device), plan, backend="triton")
    return Batch(made.cpu(), aug.targets(plan, given.targets, maps=make_maps()))


def go_through_kornia(name: str, given: Batch) -> Batch:
    pytest.importorskip("kornia")
    from mosaicaug import kornia as doors

    makers: dict[str, Callable[[], Any]] = {
        "recursive_mosaic": lambda: doors.RandomRecursiveMosaic(r=3, data_keys=["input", "class"]),
        "jigsaw": lambda: doors.RandomJigsaw(n=4, data_keys=["input", "class"]),
        "cutmix": doors.RandomCutMix,
        "mixup": doors.RandomMixUp,
        "snapmix": lambda: doors.RandomSnapMix(beta=5.0, cam=look),
    }
    door = makers[name]()
    torch.manual_seed(SEED)
    pipeline = doors.AugmentationSequential(door, data_keys=["input", "class"])
    return Batch(*pipeline(given.images, given.targets))


def go_through_torchvision(name: str, given: Batch) -> Batch:
    tv_tensors = pytest.importorskip("torchvision.tv_tensors")
    from torchvision.transforms import v2

    from mosaicaug.torchvision import V2Transform

    aug = AUGMENTATIONS[name]()
    if isinstance(aug, SnapMix):
        aug.cam = look
    torch.manual_seed(SEED)
    made, targets = v2.Compose([V2Transform(aug)])(tv_tensors.Image(given.images), given.targets)
    return Batch(made.as_subclass(Tensor), targets)


def go_through_dali(name: str, given: Batch) -> Batch:
    """Call DALI; `multi_paste` takes no float16, which is copied as the bits of int16 or mixed as float32."""
    library: Any = pytest.importorskip("nvidia.dali")
    from mosaicaug import dali as doors

    fn, types = library.fn, library.types

    pixels, classes = given.images.movedim(1, -1).contiguous().numpy(), given.targets.numpy()
    half = given.images.dtype == torch.float16
    pipeline = library.Pipeline(batch_size=BATCH, num_threads=1, device_id=None)
    with pipeline:
        images = fn.external_source(lambda: pixels, layout="HWC")
        labels = fn.external_source(lambda: classes)
        if half and name in COPIES:
            images = fn.reinterpret(images, dtype=types.INT16)
        elif half:
            images = fn.cast(images, dtype=types.FLOAT)
        makers: dict[str, Callable[[], Any]] = {
            "recursive_mosaic": lambda: (doors.recursive_mosaic(images, r=3, seed=SEED), (labels,)),
            "jigsaw": lambda: (doors.jigsaw(images, n=4, seed=SEED), (labels,)),
            "cutmix": lambda: doors.cutmix(images, labels, seed=SEED),
            "mixup": lambda: doors.mixup(images, labels, seed=SEED),
            "snapmix": lambda: doors.snapmix(images, labels, beta=5.0, seed=SEED),
        }
        mixed, targets = makers[name]()
        if half:
            mixed = (fn.reinterpret if name in COPIES else fn.cast)(mixed, dtype=types.FLOAT16)
        pipeline.set_outputs(mixed, *targets)
    out, *rest = (torch.from_numpy(output.as_array().copy()) for output in pipeline.run())
    targets = rest[0]
    if name == "snapmix":
        pasted = doors.Pasted(*rest)
        targets = SnapMix().targets(pasted.to_plan(SIZE), pasted.labels, maps=make_maps())
    elif len(rest) == 4:
        targets = Targets(*rest)
    return Batch(out.movedim(-1, 1), targets)


DOORS = {
    "class": go_through_class,
    "triton": go_through_triton,
    "kornia": go_through_kornia,
    "torchvision": go_through_torchvision,
    "dali": go_through_dali,
}


def largest_difference(door: str, name: str, dtype: torch.dtype) -> float:
    """Largest difference allowed between pixels."""
    if door != "dali" or name in COPIES:
        return 0.0
    if dtype == torch.uint8:
        return 1.0
    return 0.003 if name == "snapmix" else {torch.float16: 2**-10, torch.float32: 0.0}[dtype]


@pytest.mark.usefixtures("large_programs")
@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("door", DOORS)
def test_one_seed_one_result(door: str, name: str, dtype: torch.dtype, channels_last: bool) -> None:
    given = make_batch(dtype, channels_last)
    want, got = go_through_torch(name, given), DOORS[door](name, given)
    assert (got.images.dtype, got.images.shape) == (dtype, want.images.shape)
    bound = largest_difference(door, name, dtype)
    if bound:
        assert (got.images.double() - want.images.double()).abs().max() <= bound
    else:
        assert torch.equal(got.images, want.images)
    if door != "dali":
        assert got.images.stride() == given.images.stride()
    if isinstance(want.targets, Targets):
        assert isinstance(got.targets, Targets)
        for one, other in zip(got.targets, want.targets, strict=True):
            assert torch.equal(one, other)
        assert torch.isfinite(cross_entropy(torch.ones(BATCH, 6), got.targets))
    else:
        assert torch.equal(got.targets, want.targets)


@pytest.mark.parametrize("door", DOORS)
def test_another_seed_another_result(door: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = make_batch(torch.uint8, channels_last=False)
    want = go_through_torch("cutmix", given)
    monkeypatch.setitem(globals(), "SEED", SEED + 1)
    assert not torch.equal(DOORS[door]("cutmix", given).images, want.images)
