"""One batch, the same bits, wherever the images live."""

from __future__ import annotations

import os
import pickle
import signal
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import data

from pmsi.data import storage as store
from pmsi.data.dataset import Dataset, load_dataset
from pmsi.data.storage import DeviceStore, FileStore, HostStore, ImageFiles, ImageStore, Split, make_store
from pmsi.runtime.checkpoints import load_checkpoint
from tests.helpers.small_run import RECIPE, Watch, make_trainer, name_differences

CPU = torch.device("cpu")
BATCHES = [torch.tensor([3, 0, 0, 8]), torch.tensor([11]), torch.tensor([5, 6])]


def read(photos: Path, *, stream: bool = False) -> Dataset:
    return load_dataset("folder", photos, resize=36, stream=stream)


def list_stores(photos: Path) -> list[ImageStore]:
    memory, files = read(photos).train, read(photos, stream=True).train
    return [
        DeviceStore(memory.images, memory.labels, CPU),
        HostStore(memory.images, memory.labels, CPU),
        make_store(files, CPU),
    ]


def test_every_store_fetches_the_same_images(photos: Path) -> None:
    images, labels = read(photos).train.images, read(photos).train.labels
    for held in list_stores(photos):
        assert torch.equal(held.labels, labels)
        assert held.device == CPU
        fetched = [stored[index] for stored, index in held.fetch(BATCHES)]
        assert len(fetched) == len(BATCHES)
        for found, batch in zip(fetched, BATCHES, strict=True):
            assert torch.equal(found, images[batch]), held.where
            assert found.dtype == torch.uint8
    assert [held.where for held in list_stores(photos)] == ["cpu", "host memory", "files"]


def test_runs_from_files_and_from_memory_end_in_the_same_bits(photos: Path, tmp_path: Path) -> None:
    recipe = replace(RECIPE, epochs=1, augmentation="cutmix")
    states = []
    for stream in (False, True):
        folder = tmp_path / str(stream)
        trainer = make_trainer(folder, recipe, dataset=read(photos, stream=stream))
        assert trainer.train.where == ("files" if stream else "cpu")
        trainer.run(Watch())
        states.append(load_checkpoint(folder / "last.ckpt"))
    assert [name for name in name_differences(*states) if "identity" not in name] == []
    assert states[0]["identity"]["data_crc32"] != states[1]["identity"]["data_crc32"]


def test_streamed_images_are_decoded_when_they_are_asked_for(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, _: int) -> Tensor:
        pytest.fail(f"{path} was read")

    with monkeypatch.context() as patch:
        patch.setattr(store, "read_resized", refuse)
        dataset = read(photos, stream=True)
    assert dataset.train.images.shape == (0, 3, 36, 36)
    assert dataset.train.files is not None
    assert len(dataset.train.files) == len(dataset.train.labels)
    assert torch.equal(dataset.train.take(torch.tensor([7, 2])), read(photos).train.images[[7, 2]])
    assert dataset.protocol.endswith("read anew in every epoch.")


def test_a_streamed_image_that_cannot_be_read_is_named(photos: Path) -> None:
    dataset = read(photos, stream=True)
    broken = sorted((photos / "train").rglob("*.png"))[5]
    broken.write_bytes(broken.read_bytes()[:60])
    held = make_store(dataset.train, CPU)
    with pytest.raises(ValueError, match=f"cannot read {broken}") as error:
        list(held.fetch([torch.arange(3), torch.arange(3, 9)]))
    assert "Traceback" not in str(error.value)
    with pytest.raises(ValueError, match="cannot read"):
        dataset.train.take(torch.tensor([5]))
    with pytest.raises(ValueError, match="unreadable ones cannot be skipped"):
        load_dataset("folder", photos, resize=36, stream=True, skip_unreadable=True)


def test_files_that_change_are_another_run(photos: Path) -> None:
    before = read(photos, stream=True).train.crc32
    assert read(photos, stream=True).train.crc32 == before
    path = next((photos / "train/a").iterdir())
    os.utime(path, (1, 1))
    assert read(photos, stream=True).train.crc32 != before


def test_workers_leave_signals_to_the_run(photos: Path) -> None:
    """Ctrl-C and SIGTERM reach every process of a group: the run finishes its mini-batch, and needs its workers."""
    held = make_store(read(photos, stream=True).train, CPU)
    assert isinstance(held, FileStore)

    class Press(ImageFiles):
        def __getitem__(self, row: int) -> Tensor | ValueError:
            for number in (signal.SIGINT, signal.SIGTERM):
                os.kill(os.getpid(), number)
            return super().__getitem__(row)

    held.files = Press(held.files.paths, 36)
    assert [len(images) for images, _ in held.fetch([torch.arange(4)] * 3)] == [4, 4, 4]


@pytest.mark.parametrize(("asked", "made"), [(None, 2), (3, 3), (0, 0)])
def test_workers_are_those_asked_for_or_this_process_s_share(
    photos: Path, monkeypatch: pytest.MonkeyPatch, asked: int | None, made: int
) -> None:
    monkeypatch.setattr("pmsi.runtime.cores.count_cores", lambda: 16)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    seen: list[int] = []

    class Loader(data.DataLoader[Tensor]):
        def __init__(self, *args: Any, num_workers: int, **more: Any) -> None:
            seen.append(num_workers)
            super().__init__(*args, **{**more, "worker_init_fn": None})

    monkeypatch.setattr(data, "DataLoader", Loader)
    files = load_dataset("folder", photos, resize=36, stream=True, workers=asked).train
    assert [len(images) for images, _ in make_store(files, CPU).fetch([torch.arange(4)])] == [4]
    assert seen == [made]


def test_files_go_to_workers_that_are_not_forked(photos: Path) -> None:
    files = read(photos, stream=True).train.files
    assert files is not None
    copy, collate, begin = pickle.loads(pickle.dumps((files, store._collate, store._ignore_signals)))
    assert torch.equal(collate([copy[3]]), collate([files[3]]))
    assert begin is store._ignore_signals


def test_fewer_workers_than_none_are_refused(photos: Path) -> None:
    with pytest.raises(ValueError, match="--workers: must be 0 or above, got -1"):
        load_dataset("folder", photos, resize=36, workers=-1)


def test_streaming_draws_nothing_from_the_global_generator(photos: Path) -> None:
    held = make_store(read(photos, stream=True).train, CPU)
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    list(held.fetch(BATCHES))
    assert torch.equal(torch.rand(3), wanted)


def test_a_split_whose_checksum_is_known_stays_as_it_is(photos: Path) -> None:
    with pytest.raises(FrozenInstanceError):
        read(photos).train.labels = torch.zeros(12, dtype=torch.int64)  # type: ignore[misc]


def test_images_that_fill_half_of_a_gpu_stay_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    split = Split(torch.zeros(10, 3, 4, 4, dtype=torch.uint8), torch.zeros(10, dtype=torch.int64))
    for free, where in ((959, "host memory"), (960, "cuda:0")):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _, free=free: (free, 0))
        monkeypatch.setattr(torch.Tensor, "to", lambda images, *_, **__: images)
        assert make_store(split, torch.device("cuda:0")).where == where
