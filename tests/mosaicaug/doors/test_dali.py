"""DALI's door: the pixels and targets of torch's, every sample of an epoch once, and errors that say what to do."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import itertools
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from mosaicaug import (
    CutMix,
    Jigsaw,
    MixUp,
    RecursiveMosaic,
    SnapMix,
    Targets,
    apply,
    class_activation_map,
    cross_entropy,
)
from mosaicaug.sampling import batch_generator

pytest.importorskip("nvidia.dali", reason="DALI is not installed")
from nvidia.dali import fn, pipeline
from nvidia.dali.plugin.base_iterator import LastBatchPolicy
from nvidia.dali.plugin.pytorch import DALIGenericIterator

from mosaicaug.dali import Pasted, cutmix, jigsaw, mixup, recursive_mosaic, snapmix
from pmsi.data.decoding import read_resized
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

ROOT = Path(__file__).parents[3]
CUB = ROOT.parent / "shared/data/cub100"
SIZES = ((37, 53), (64, 48), (9, 8))  # with margins, without, and so small that many boxes are empty or clipped
DTYPES = (torch.uint8, torch.float32)


def describe(value: Any) -> str:
    """Without the address that functions show, which differs between the processes of one test run."""
    return value.__name__ if callable(value) and hasattr(value, "__name__") else str(value)


@pytest.mark.parametrize("dtype", [*DTYPES, torch.int16])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("node", "aug"),
    [(recursive_mosaic, RecursiveMosaic(r)) for r in (0, 1, 3)]
    + [(jigsaw, Jigsaw(n)) for n in (1, 3, 8)]
    + [(recursive_mosaic, RecursiveMosaic(2, p=0.5, permutation="cyclic"))]
    + [(jigsaw, Jigsaw(2, per="batch")), (jigsaw, Jigsaw(3, p=0.5, per="batch", permutation="cyclic"))],
    ids=describe,
)
def test_tiles_are_torchs_bits(node: Any, aug: Any, size: tuple[int, int], dtype: torch.dtype) -> None:
    images = make_images(size).to(dtype)
    settings = {name: getattr(aug, name) for name in aug.settings}
    [[got]] = run(lambda x, _: node(x, **settings, seed=3), images)
    assert got.dtype == dtype
    want = apply(images.movedim(-1, 1).float(), aug.sample((BATCH, 3, *size), generator=batch_generator(3)))
    assert torch.equal(to_chw(got).float(), want)


OPTIONS: list[dict[str, Any]] = [{}, {"p": 0.5}, {"per": "batch"}, {"p": 0.5, "per": "batch"}]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("node", "make", "options"),
    [(cutmix, CutMix, options | {"true_area": exact}) for options in OPTIONS for exact in (True, False)]
    + [(mixup, MixUp, options) for options in OPTIONS],
    ids=describe,
)
def test_mixed_images_and_targets_are_torchs(
    node: Any, make: Any, options: dict[str, Any], size: tuple[int, int]
) -> None:
    """Bit for bit, but for blends in uint8: DALI rounds .5 up, torch to even."""
    labels = make_labels()
    for seed, (dtype, num_classes) in enumerate(itertools.product(DTYPES, (None, CLASSES))):
        images, given = make_images(size, dtype), {**options, "alpha": 0.7, "num_classes": num_classes}
        [[got, *targets]] = run(partial(node, **given, seed=seed), images)
        want, wanted = make(**given)(to_chw(images), labels[:, 0], generator=batch_generator(seed))
        assert got.dtype == dtype
        levels = int(node is mixup and dtype == torch.uint8)
        assert (to_chw(got).double() - want.double()).abs().max() <= levels
        expect_equal(targets, wanted if num_classes is None else [wanted])


# Noise is the hardest: neighbours differ by all they can. A position that is off by 1e-3 px shows as 1e-3 of white.
BOUNDS = {torch.uint8: 1, torch.float32: 3e-3}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", OPTIONS, ids=describe)
@pytest.mark.parametrize("size", [*SIZES, (448, 300)])
def test_snapmix_is_torchs_within_a_bound(size: tuple[int, int], options: dict[str, Any], dtype: torch.dtype) -> None:
    images, labels, aug = make_images(size, dtype), make_labels(), SnapMix(1.0, **options)
    maps = class_activation_map(torch.rand(BATCH, 4, 7, 7), torch.rand(CLASSES, 4), None, labels[:, 0])
    for seed in range(2):
        [[got, *given]] = run(partial(snapmix, beta=1.0, **options, seed=seed), images)
        want, wanted = aug(to_chw(images), labels[:, 0], maps=maps, generator=batch_generator(seed))
        assert got.dtype == dtype
        assert (to_chw(got).double() - want.double()).abs().max() <= BOUNDS[dtype]
        pasted = Pasted(*given)
        plan = pasted.to_plan(size)
        assert aug.last_plan is not None
        assert plan.to_dict() == aug.last_plan.to_dict()
        expect_equal(list(aug.targets(plan, pasted.labels, maps=maps)), wanted)


def test_boxes_of_a_large_batch_are_torchs() -> None:
    """Empty, clipped, whole: 512 boxes on images of few pixels."""
    images, labels = make_images((6, 5), batch=512), make_labels(512)
    for alpha in (0.2, 1.0):
        [[got, *targets]] = run(partial(cutmix, alpha=alpha, seed=1), images, labels)
        want, wanted = CutMix(alpha)(to_chw(images), labels[:, 0], generator=batch_generator(1))
        assert torch.equal(to_chw(got), want)
        expect_equal(targets, wanted)
        assert wanted.weight_b.min() == 0
        assert wanted.weight_b.max() > 0.5
        [[got, *given]] = run(partial(snapmix, beta=alpha, seed=1), images, labels)
        plan = SnapMix(alpha).sample((512, 3, 6, 5), generator=batch_generator(1))
        assert Pasted(*given).to_plan((6, 5)).to_dict() == plan.to_dict()
        assert (to_chw(got).int() - apply(to_chw(images), plan).int()).abs().max() <= 1


def test_sizes_of_tiled_images_may_differ() -> None:
    images = [make_images(size, batch=1)[0] for size in SIZES]
    pipe = Pipeline(batch_size=3, num_threads=1, device_id=None)
    with pipe:
        node = fn.external_source(lambda: [image.numpy() for image in images], layout="HWC")
        pipe.set_outputs(recursive_mosaic(node, 3, seed=4))
    [made] = pipe.run()
    for k, image in enumerate(images):
        plan = RecursiveMosaic(3).sample((3, 3, *image.shape[:2]), generator=batch_generator(4))
        want = apply(to_chw(image).expand(3, -1, -1, -1), plan)[k]
        assert torch.equal(to_chw(torch.from_numpy(np.array(made.at(k)))), want)


def test_mixup_takes_videos_and_other_layouts() -> None:
    for shape, layout in [((2, 9, 7, 3), "FHWC"), ((3, 9, 7), "CHW")]:
        images = torch.randint(0, 256, (BATCH, *shape), dtype=torch.uint8, generator=batch_generator(5))
        [[got, *_]] = run(lambda x, y: mixup(x, y, seed=6), images, layout=layout)
        plan = MixUp().sample((BATCH, 3, 9, 7), generator=batch_generator(6))
        clips = images if layout == "CHW" else to_chw(images)
        want = apply(clips if clips.ndim == 5 else clips[:, None], plan).reshape(clips.shape)
        assert ((got if layout == "CHW" else to_chw(got)).int() - want.int()).abs().max() <= 1


def test_operations_follow_each_other_in_one_graph() -> None:
    images, labels = make_images((32, 48)), make_labels()

    def define(x: Any, y: Any) -> Any:
        x, y = cutmix(jigsaw(x, 4, seed=1), y, num_classes=CLASSES, seed=2)
        return mixup(x, y, num_classes=CLASSES, seed=3)

    [[got, soft]] = run(define, images)
    tiled = Jigsaw(4)(to_chw(images), generator=batch_generator(1))
    cut, cut_labels = CutMix(num_classes=CLASSES)(tiled, labels[:, 0], generator=batch_generator(2))
    want, wanted = MixUp()(cut, cut_labels, generator=batch_generator(3))
    assert (to_chw(got).int() - want.int()).abs().max() <= 1
    assert torch.equal(soft, wanted)
    assert torch.isfinite(cross_entropy(torch.randn(BATCH, CLASSES), soft))


def test_labels_below_zero_are_of_no_class() -> None:
    labels = torch.tensor([[-1], [0], [1], [-100]], dtype=torch.int32)
    [[_, soft]] = run(lambda x, y: mixup(x, y, num_classes=200, p=0.0), make_images((8, 8), batch=4), labels)
    assert soft.sum(1).tolist() == [0, 1, 1, 0]


NAMES = ["index", "mosaic", "jigsaw", *Targets._fields, "cut", "blend", "soft", "snap", *Pasted._fields]


@pipeline.pipeline_def
def make_pipeline(files: list[str], shard: int, shards: int) -> tuple[Any, ...]:
    encoded, index = fn.readers.file(
        files=files,
        labels=list(range(len(files))),
        name="reader",
        random_shuffle=True,
        shard_id=shard,
        num_shards=shards,
        pad_last_batch=True,
    )
    images = fn.resize(fn.decoders.image(encoded), size=[40, 40])
    cut, targets = cutmix(images, index, seed=3)
    blend, soft = mixup(images, index % CLASSES, num_classes=CLASSES, seed=4)
    snap, pasted = snapmix(images, index, seed=5)
    tiled = recursive_mosaic(images, 3, seed=1), jigsaw(images, 5, seed=2)
    return index, *tiled, *targets, cut, blend, soft, snap, *pasted


def read(files: list[str], shard: int = 0, shards: int = 1, *, epochs: int = 1) -> list[list[dict[str, Tensor]]]:
    pipe = make_pipeline(files, shard, shards, batch_size=32, num_threads=2, device_id=None, seed=0)
    batches: Any = DALIGenericIterator(
        pipe, NAMES, reader_name="reader", last_batch_policy=LastBatchPolicy.PARTIAL, auto_reset=True
    )
    return [[batch[0] for batch in batches] for _ in range(epochs)]


def list_read(epoch: list[dict[str, Tensor]]) -> list[int]:
    return [int(index) for batch in epoch for index in batch["index"]]


@pytest.fixture(scope="module")
def birds() -> list[str]:
    if not CUB.is_dir():
        pytest.skip(f"no real JPEGs: {CUB.relative_to(ROOT.parent)} is not beside the repository")
    lines = (CUB / "images.txt").read_text().splitlines()
    return [str(CUB / "images" / line.split()[1]) for line in lines[::5][:1000]]


def test_a_thousand_jpegs_twice_are_the_same_bits(birds: list[str]) -> None:
    assert len(birds) == 1000
    [once], [again] = read(birds), read(birds)
    assert [len(batch["index"]) for batch in once] == [32] * 31 + [8]
    assert sorted(list_read(once)) == list(range(1000))
    for one, other in zip(once, again, strict=True):
        expect_equal([one[name] for name in NAMES], [other[name] for name in NAMES])


def test_two_shards_are_the_data_set(birds: list[str]) -> None:
    files = birds[:331]
    shards = [read(files, shard, 2, epochs=2) for shard in range(2)]
    for epoch in range(2):
        parts = [list_read(shard[epoch]) for shard in shards]
        assert sorted(len(part) for part in parts) == [165, 166]
        assert sorted(parts[0] + parts[1]) == list(range(331))
    first, second = (epoch[0] for epoch in shards[0])
    assert not torch.equal(first["overlay"], second["overlay"])


def write_jpegs(folder: Path, classes: int, count: int, side: int = 40) -> list[str]:
    """Class folders of noise about a colour of the class."""
    files = []
    for label, number in itertools.product(range(classes), range(count)):
        noise = torch.randint(0, 100, (side, side, 3), generator=batch_generator(label, number))
        noise[..., label % 3] += 150
        file = folder / f"class {label}" / f"{number:02}.jpg"
        file.parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(noise.to(torch.uint8).numpy()).save(file)
        files.append(str(file))
    return files


def test_an_epoch_of_a_reader_goes_on_counting(tmp_path: Path) -> None:
    files = write_jpegs(tmp_path, 3, 13)
    first, second = read(files, epochs=2)
    for epoch in (first, second):
        assert [len(batch["index"]) for batch in epoch] == [32, 7]
        assert sorted(list_read(epoch)) == list(range(39))
        labels = torch.cat([batch["labels_a"] for batch in epoch])
        assert labels.tolist() == list_read(epoch)
    for k, batch in enumerate([first[0], second[0]]):
        drawn = CutMix().sample((32, 3, 40, 40), generator=batch_generator(3, 2 * k))
        assert torch.equal(batch["labels_b"], batch["labels_a"][drawn.overlay.long()])
    targets = Targets(*(first[1][name] for name in Targets._fields))
    assert torch.isfinite(cross_entropy(torch.randn(7, 39), targets))
    with pytest.raises(ValueError, match=r"^Plan: overlay must lie in 0..6, got "):
        Pasted(*(first[1][name] for name in Pasted._fields)).to_plan((40, 40))


@pytest.mark.parametrize("node", NODES.values(), ids=NODES)
def test_arguments_are_checked_when_the_graph_is_defined(node: Any) -> None:
    mixes = node in [NODES[name] for name in MIXING]
    level = {recursive_mosaic: "r", jigsaw: "n", snapmix: "beta"}.get(node, "alpha")
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"p": 1.5}, r"p must lie in 0..1, got 1.5"),
        ({"per": "image"}, r"per must be one of \('sample', 'batch'\), got 'image'"),
        ({level: -1}, rf"{level} must be (above|at least) \d, got -1"),
        ({"seed": -1}, rf"^{node.__name__}: seed must be at least 0, got -1"),
    ]
    if not mixes:
        wrong.append(({"permutation": "any"}, r"permutation must be one of \('uniform', 'cyclic'\), got 'any'"))
    if node in (cutmix, mixup):
        wrong.append(({"num_classes": 0}, r"num_classes must be at least 1, got 0"))
    for options, message in wrong:
        with pytest.raises(ValueError, match=message):
            run(lambda x, y: node(x, y, **options) if mixes else node(x, **options), make_images((8, 8)))  # noqa: B023
    with pytest.raises(TypeError, match=rf"^{node.__name__}: seed must be an integer, got 1.0"):
        run(lambda x, y: node(x, y, seed=1.0) if mixes else node(x, seed=1.0), make_images((8, 8)))
    if mixes:
        with pytest.raises(
            ValueError, match=rf"^{node.__name__}: mixing images mixes labels too, got none; call it with"
        ):
            run(lambda x, _: node(x), make_images((8, 8)))


HINT = r"# images must be HWC of uint8, int16, int32 or float32, "


@pytest.mark.parametrize("name", [name for name in NODES if name != "mixup"])
@pytest.mark.parametrize(
    ("shape", "dtype", "layout", "cause"),
    [
        ((3, 8, 8), torch.uint8, "CHW", 'The layout "CHW" does not match any of the allowed layouts'),
        ((8, 8, 3), torch.float16, "HWC", "[Uu]nsupported.* type"),
        ((2, 8, 8, 3), torch.uint8, "FHWC", "kernel instance"),
    ],
)
def test_what_only_dali_can_know_is_told_by_dali_with_our_line(
    name: str, shape: tuple[int, ...], dtype: torch.dtype, layout: str, cause: str
) -> None:
    images = torch.zeros(BATCH, *shape).to(dtype)
    with pytest.raises((RuntimeError, ValueError), match=cause) as caught:
        run(lambda x, y: flatten(NODES[name](x, y) if name in MIXING else NODES[name](x))[0], images, layout=layout)
    assert "mosaicaug/dali/__init__.py" in str(caught.value)
    assert "# images must be HWC" in str(caught.value)


def test_images_smaller_than_the_grid_stop_the_pipeline() -> None:
    for node, level in [(recursive_mosaic, 4), (jigsaw, 16)]:
        for size in [(15, 40), (40, 15)]:
            with pytest.raises(RuntimeError, match="must be within input sample") as caught:
                run(lambda x, _: node(x, level), make_images(size))  # noqa: B023
            assert HINT + "no smaller than the grid of tiles" in str(caught.value)


@pytest.mark.parametrize("node", [cutmix, mixup])
def test_labels_that_do_not_fit_stop_the_pipeline(node: Any) -> None:
    images = make_images((8, 8))
    with pytest.raises(RuntimeError, match="Index 4 is out of range for axis 0 of length 4") as caught:
        run(lambda x, y: node(x, y, num_classes=4)[1], images)
    assert "# labels must be below num_classes" in str(caught.value)
    with pytest.raises(RuntimeError, match=r"Actual volume: +5") as caught:
        run(lambda x, y: node(x, y)[1], images, torch.rand(BATCH, CLASSES))
    assert "# labels must be one integer each; soft ones need num_classes" in str(caught.value)


def load_example() -> Any:
    spec = importlib.util.spec_from_file_location("dali_train", ROOT / "examples/dali_train.py")
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    return example


def test_the_example_lists_the_official_layout(tmp_path: Path) -> None:
    rows = [("1.a/x.jpg", 1, 1), ("1.a/y.jpg", 1, 0), ("2.b/x.jpg", 2, 1), ("3.c/x.jpg", 3, 1)]
    columns = [list(column) for column in zip(*rows, strict=True)] + [["1.a", "2.b", "3.c"]]
    for name, column in zip(("images", "image_class_labels", "train_test_split", "classes"), columns, strict=True):
        (tmp_path / f"{name}.txt").write_text("".join(f"{k} {value}\n" for k, value in enumerate(column, 1)))
    for file, *_ in rows:  # listed images have to be there
        (tmp_path / "images" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / file).touch()
    names, train, test = load_example().list_images(tmp_path, 2)
    assert names == ("1.a", "2.b")
    assert sorted(train) == [(str(tmp_path / "images/1.a/x.jpg"), 0), (str(tmp_path / "images/2.b/x.jpg"), 1)]
    assert test == [(str(tmp_path / "images/1.a/y.jpg"), 0)]


def test_the_example_reads_photographs_upright_as_pmsi_does(tmp_path: Path) -> None:
    example, tag = load_example(), Image.Exif()
    tag[0x0112] = 6  # of a phone that was held upright
    slope = np.mgrid[0:32, 0:64].transpose(1, 2, 0) * 3
    stored = np.concatenate([slope, slope[..., :1]], 2).astype(np.uint8)
    Image.fromarray(stored).save(tmp_path / "phone.jpg", exif=tag, quality=100, subsampling=0)
    recipe, entries = example.Recipe(resize=32, crop=32, batch_size=2), [(str(tmp_path / "phone.jpg"), 0)]
    pipe = example.make_test_pipeline(recipe, entries, batch_size=1, num_threads=1, device_id=None, seed=0)
    split = example.read_test(pipe)
    ours = read_resized(tmp_path / "phone.jpg", 32)
    assert (split.images[0].int() - ours.int()).abs().float().mean() < 2
    assert (split.images[0].int() - ours.flip(1).int()).abs().float().mean() > 20


@pytest.mark.usefixtures("small_backbone")
def test_the_example_trains_on_jpegs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_jpegs(tmp_path, 3, 20)
    example = load_example()
    shown: list[tuple[list[Tensor], Tensor]] = []
    step = example.Trainer.step_phases

    def watch(trainer: Any, inputs: list[tuple[Tensor, Tensor]]) -> Tensor:
        shown.append(([images for images, _ in inputs], inputs[0][1]))
        losses: Tensor = step(trainer, inputs)
        return losses

    monkeypatch.setattr(example.Trainer, "step_phases", watch)
    accuracy = example.main(tmp_path, epochs=2, size=32, batch=16)
    assert len(shown) == 6  # 48 training images, 3 batches of 16, twice
    for phases, labels in shown:
        assert [tuple(images.shape) for images in phases] == [(16, 3, 32, 32)] * 4
        assert all(images.is_contiguous(memory_format=torch.channels_last) for images in phases)
        raw = phases[3].flatten(2).sort().values  # normalised pixels of the crop: mosaics only move them
        for images in phases[:3]:
            assert torch.equal(images.flatten(2).sort().values, raw)
            assert not torch.equal(images, phases[3])
        assert torch.equal(phases[3].mean((2, 3)).argmax(1), labels)  # the class's colour
    assert sorted(torch.cat([labels for _, labels in shown[:3]]).bincount().tolist()) == [16, 16, 16]
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in printed] == ["epoch 1", "epoch 2"]
    assert printed[1].endswith(f"Mix {accuracy:.1f}%")
    assert accuracy > 50


@pytest.mark.parametrize(
    ("node", "ours"),
    [(recursive_mosaic, RecursiveMosaic), (jigsaw, Jigsaw), (cutmix, CutMix), (mixup, MixUp), (snapmix, SnapMix)],
)
def test_defaults_are_ours(node: Any, ours: Any) -> None:
    own, theirs = (inspect.signature(one).parameters for one in (ours, node))
    shared = own.keys() & theirs.keys()
    assert {"p", "per"} < shared
    assert {name: theirs[name].default for name in shared} == {name: own[name].default for name in shared}
    assert theirs["seed"].default == 0
