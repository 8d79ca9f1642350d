"""DALI's graphs: where nodes are made and where not, a seed for every batch, dynamic mode and GPU backend."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mosaicaug import (
    Jigsaw,
    RecursiveMosaic,
    apply,
)
from mosaicaug.sampling import batch_generator

pytest.importorskip("nvidia.dali", reason="DALI is not installed")

from nvidia.dali import fn, pipeline
from nvidia.dali.plugin.pytorch import DALIGenericIterator

from mosaicaug.dali import cutmix, jigsaw, mixup, recursive_mosaic, snapmix
from tests.helpers.dali_nodes import (
    BATCH,
    CLASSES,
    MIXING,
    NODES,
    Pipeline,
    expect_equal,
    flatten,
    make_images,
    make_labels,
    run,
    to_chw,
)


def test_every_batch_has_its_own_seed() -> None:
    images = make_images((16, 16))
    made = run(lambda x, _: jigsaw(x, 4, seed=2**63 + 5), images, batches=4)
    for iteration, [got] in enumerate(made):
        want = Jigsaw(4)(to_chw(images), generator=batch_generator(2**63 + 5, iteration))
        assert torch.equal(to_chw(got), want)
    assert torch.equal(batch_generator(7).get_state(), torch.Generator().manual_seed(7).get_state())


def test_epochs_of_a_source_that_ends_differ_and_runs_agree() -> None:
    images = make_images((16, 16), batch=4).numpy()

    class Source:
        count = 0

        def __call__(self) -> Any:
            self.count = (self.count + 1) % 4
            if self.count == 0:
                raise StopIteration
            return images

    def train() -> list[Tensor]:
        pipe = Pipeline(batch_size=4, num_threads=1, device_id=None)
        with pipe:
            pipe.set_outputs(recursive_mosaic(fn.external_source(Source(), layout="HWC"), 2, seed=1))
        batches: Any = DALIGenericIterator(pipe, ["images"], auto_reset=True)
        return [batch[0]["images"] for _ in range(2) for batch in batches]

    once, again = train(), train()
    assert len(once) == 6
    expect_equal(once, again)
    for k, batch in enumerate(once):
        drawn = RecursiveMosaic(2).sample((4, 3, 16, 16), generator=batch_generator(1, k % 3, k // 3))
        assert torch.equal(to_chw(batch), apply(to_chw(torch.from_numpy(images)), drawn))


def test_dynamic_mode_gives_the_same() -> None:
    dynamic = pytest.importorskip("nvidia.dali.experimental.dynamic")
    images, labels = make_images((37, 53)), make_labels()
    x, y = dynamic.as_batch(images.numpy(), layout="HWC"), dynamic.as_batch(labels.numpy())
    for name, node in NODES.items():
        for options in [{}, {"num_classes": CLASSES}] if name in ("cutmix", "mixup") else [{}]:
            given = {"seed": 7, **options}
            made = node(x, y, **given) if name in MIXING else node(x, **given)
            [want] = run(lambda x, y: node(x, y, **given) if name in MIXING else node(x, **given), images)  # noqa: B023
            expect_equal([one.torch() for one in flatten(made)], want)
    with torch.device("meta"):
        made = cutmix(x, y, num_classes=CLASSES, seed=7)
    expect_equal(
        [one.torch() for one in flatten(made)], run(lambda x, y: cutmix(x, y, num_classes=CLASSES, seed=7), images)[0]
    )
    fewer = dynamic.as_batch(images[:3].numpy(), layout="HWC")  # batches may differ in size
    assert torch.equal(recursive_mosaic(fewer, 2).torch(), recursive_mosaic(x, 2).torch()[:3])


def test_graphs_on_the_gpu_backend_can_be_defined() -> None:
    """No more can be said without a GPU: arguments stay on the CPU, images and what is multiplied with them do not."""
    pipe = Pipeline(batch_size=4, num_threads=1, device_id=None)
    with pipe:
        images = fn.external_source(lambda: None, layout="HWC").gpu()
        labels = fn.external_source(lambda: None)
        tiled = recursive_mosaic(images), jigsaw(images)
        mixed = [
            cutmix(images, labels),
            mixup(images, labels, num_classes=3),
            mixup(images, labels.gpu(), num_classes=3),
            snapmix(images, labels),
        ]
        assert [node.device for node in (*tiled, *(made for made, _ in mixed))] == ["gpu"] * 6
        assert {node.device for node in flatten([targets for _, targets in mixed])} == {"cpu"}
        pipe.set_outputs(*tiled, *flatten(mixed))
        assert len(pipe.serialize()) > 1000


@pytest.mark.parametrize("name", NODES)
def test_nodes_need_a_pipeline_and_its_batch_size(name: str) -> None:
    def call(images: Any) -> Any:
        return NODES[name](images, images) if name in MIXING else NODES[name](images)

    with pytest.raises(
        TypeError, match=rf"^{name}: images must be a node of a DALI pipeline or a Batch .*, got Tensor; "
    ):
        call(torch.zeros(2, 8, 8, 3))
    source = fn.external_source(lambda: None)
    if name in MIXING:
        with pytest.raises(TypeError, match=rf"^{name}: labels must be a node of a DALI pipeline or .*, got Tensor; "):
            NODES[name](source, torch.zeros(2))
    with pytest.raises(RuntimeError, match=rf"^{name}: no pipeline is being defined; call it in a function under @pip"):
        call(source)
    with Pipeline(num_threads=1, device_id=None), pytest.raises(ValueError, match=rf"^{name}: .* pass batch_size= to"):
        call(source)


def define_in_a_branch(name: str) -> Any:
    @pipeline.pipeline_def(enable_conditionals=True)
    def define() -> Any:
        images = fn.random.uniform(shape=[8, 8, 3])
        if fn.random.coin_flip():
            images = NODES[name](images, images)[0] if name in MIXING else NODES[name](images)
        return images

    return define(batch_size=4, num_threads=1, device_id=None)


@pytest.mark.parametrize("name", NODES)
def test_a_branch_is_no_place_for_draws(name: str) -> None:
    with pytest.raises(
        RuntimeError, match=rf"{name}: draws are for whole batches, got a branch's part of one; call it"
    ):
        define_in_a_branch(name).build()


def test_conditional_execution_around_them_is_fine() -> None:
    images, labels = make_images((16, 16)), make_labels()

    def define(x: Any, y: Any) -> Any:
        return recursive_mosaic(x, 2, seed=1), cutmix(x, y, seed=2), snapmix(x, y, seed=3)

    @pipeline.pipeline_def(enable_conditionals=True)
    def define_conditionally() -> Any:
        x = fn.external_source(lambda: images.numpy(), layout="HWC")  # noqa: PLW0108
        return tuple(flatten(define(x, fn.external_source(lambda: labels.numpy()))))  # noqa: PLW0108

    [plain] = run(define, images, labels)
    conditional: Any = define_conditionally(batch_size=BATCH, num_threads=1, device_id=None).run()
    expect_equal(plain, [torch.from_numpy(np.array(one.as_array())) for one in conditional])


def test_a_machine_without_dali_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "mosaicaug.dali")
    monkeypatch.delitem(sys.modules, "mosaicaug.dali.graph")
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    with pytest.raises(
        ImportError, match=r"^mosaicaug.dali: the package DALI is missing; pip install mosaicaug\[dali\]"
    ):
        importlib.import_module("mosaicaug.dali")
