"""Properties of augmentations: what they draw, mix and give back, and `Compose` and `OneOf` through changes and copies.

An augmentation is described by its class, its settings and its members: ``["OneOf", {"per": "batch"}, [...]]``.
"""

from __future__ import annotations

import copy
import pickle
from typing import Any, ClassVar

import torch
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from torch import Tensor

import mosaicaug
from mosaicaug import Augmentation, OneOf, Plan, Targets
from tests.helpers.dense_oracle import trace_sources
from tests.helpers.oracle import seeded
from tests.properties.cases import Case
from tests.properties.pixels import calls, expect_bits, expect_oracle, tried

CLASSES = 5
Described = list[Any]

chances = st.sampled_from([1.0, 0.5, 0.0, 0.9])
pers = st.sampled_from(["sample", "batch"])
laws = st.sampled_from(["uniform", "cyclic"])
alphas = st.sampled_from([1.0, 0.2, 5.0, 0.01, 1e6])
SETTINGS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "RecursiveMosaic": {"r": st.integers(0, 3), "p": chances, "per": pers, "permutation": laws},
    "Jigsaw": {"n": st.integers(1, 4), "p": chances, "per": pers, "permutation": laws},
    "CutMix": {"alpha": alphas, "p": chances, "per": pers, "true_area": st.booleans()},
    "MixUp": {"alpha": alphas, "p": chances, "per": pers},
    "SnapMix": {"beta": alphas, "p": chances, "per": pers},
}
TILING, MIXING = ("RecursiveMosaic", "Jigsaw"), ("CutMix", "MixUp", "SnapMix")
WRONG = {
    "p": 1.5,
    "per": "image",
    "r": -1,
    "n": 0,
    "permutation": "random",
    "alpha": 0.0,
    "beta": -1.0,
    "weights": [0.0],
}


def describe(names: tuple[str, ...]) -> st.SearchStrategy[Described]:
    """Strategy of single augmentations."""
    return st.sampled_from(names).flatmap(
        lambda name: st.fixed_dictionaries({}, optional=SETTINGS[name]).map(lambda settings: [name, settings, []])
    )


def describe_several(depth: int = 1) -> st.SearchStrategy[Described]:
    """Strategy of `Compose` and `OneOf`, of single augmentations or of others of their kind."""
    inner = describe_several(depth - 1) if depth else st.nothing()
    tiling = describe(TILING)
    last = st.one_of(tiling, describe(MIXING), inner)
    composed = st.tuples(st.lists(tiling, max_size=2), last).map(lambda parts: ["Compose", {}, [*parts[0], parts[1]]])

    def weigh(members: list[Described]) -> st.SearchStrategy[Described]:
        weights = st.lists(st.sampled_from([1.0, 0.0, 2.5]), min_size=len(members), max_size=len(members)).filter(sum)
        settings = st.fixed_dictionaries({}, optional={"weights": weights, "per": pers})
        return settings.map(lambda chosen: ["OneOf", chosen, members])

    members = st.lists(st.one_of(tiling, describe(MIXING), inner), min_size=1, max_size=3)
    return st.one_of(composed, members.flatmap(weigh))


def describe_any() -> st.SearchStrategy[Described]:
    """Strategy of all augmentations."""
    return st.one_of(describe(TILING), describe(MIXING), describe_several())


def build(described: Described, num_classes: int | None = None) -> Augmentation:
    """Build the augmentation that is described."""
    name, settings, members = described
    if name in MIXING:
        settings = {**settings, "num_classes": num_classes}
    parts = [[build(member, num_classes) for member in members]] if members else []
    made: Augmentation = getattr(mosaicaug, name)(*parts, **settings)
    return made


def list_names(described: Described) -> set[str]:
    """Names of an augmentation and of all within it."""
    return {described[0]}.union(*(list_names(member) for member in described[2]))


def check_augmentation(case: Case) -> None:
    """AssertionError unless a call gives the oracle's pixels, counted labels, and the same bits for the same seed."""
    num_classes = CLASSES if case.seed % 3 == 0 else None
    aug, images = build(case.augmentation, num_classes), case.make_images()
    labels = torch.randint(0, CLASSES, (case.batch,), generator=seeded(case.seed))
    maps = torch.rand(case.batch, 3, 4, generator=seeded(case.seed))
    if is_refused(aug, images.shape):
        return
    tried["augmentations"] += case.batch
    calls["augmentations"] += 1
    # 1. Images, by the plan that is kept; nothing else is touched.
    before, state = images.clone(), torch.get_rng_state()
    got, targets = aug(images, labels, maps=maps, generator=seeded(case.seed))
    plan = aug.last_plan
    assert plan is not None
    expect_bits(images, before)
    assert torch.equal(torch.get_rng_state(), state)
    fields = plan.to_dict()
    Plan.from_dict(fields)
    if case.batch:
        expect_oracle(got, images, trace_sources(fields), case, {})
    assert got.data_ptr() != images.data_ptr() or not got.numel()
    # 2. Labels.
    if aug.mixes:
        expect_labels(targets, labels, plan, snapmix="SnapMix" in list_names(case.augmentation))
    else:
        assert targets is labels
    # 3. The same seed gives the same bits, to copies too; torch's own generator gives them as well.
    for twin in (copy.deepcopy(aug), pickle.loads(pickle.dumps(aug)), build(case.augmentation, num_classes)):
        expect_same(twin(images, labels, maps=maps, generator=seeded(case.seed)), (got, targets))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(case.seed)
        expect_same(aug(images, labels, maps=maps), (got, targets))
    # 4. An image's own draw does not depend on how many follow it.
    longer = aug.sample((case.batch + 3, *images.shape[1:]), generator=seeded(case.seed))
    if case.batch and not (case.batch < 2 and "batch" in str(case.augmentation)):
        assert longer.grid == plan.grid
        for name in ("from_box", "to_box", "opacity"):
            assert torch.equal(getattr(longer, name)[: case.batch], getattr(plan, name))
        assert torch.equal((longer.tiles - longer.home)[: case.batch], plan.tiles - plan.home)
    # 5. In eval mode images come back themselves, and labels keep all weight.
    same, kept = aug.eval()(images, labels, maps=maps)
    assert same is images
    if isinstance(kept, Targets):
        assert torch.equal(kept.labels_a, labels)
        assert (kept.weight_a == 1).all()
        assert (kept.weight_b == 0).all()


def expect_labels(targets: Any, labels: Tensor, plan: Plan, *, snapmix: bool) -> None:
    """AssertionError unless weights are shares of pixels; SnapMix's are semantic and are left out."""
    entry, partner = torch.arange(len(plan)), plan.overlay.long()
    if not isinstance(targets, Targets):
        assert targets.shape == (len(labels), CLASSES)
        own, other = (torch.nn.functional.one_hot(values, CLASSES) for values in (labels, labels[partner]))
        shares = count_shares(plan)[:, None]
        want = own * (1 - shares) + other * shares
        if not snapmix:
            torch.testing.assert_close(targets.double(), want, rtol=0, atol=2e-6)
        return
    assert torch.equal(targets.labels_a, labels)
    assert torch.equal(targets.labels_b, labels[partner])
    if not snapmix:
        torch.testing.assert_close(targets.weight_b.double(), count_shares(plan), rtol=0, atol=1e-6)
        torch.testing.assert_close(targets.weight_a + targets.weight_b, torch.ones(len(entry)), rtol=0, atol=1e-6)


def count_shares(plan: Plan) -> Tensor:
    """Share of the overlay in each output, float64: counted in pixels, or as it was drawn."""
    if plan.drawn_share is not None:
        return plan.drawn_share.double()
    return trace_sources(plan.to_dict()).weight[1:].sum(0).mean((1, 2))


def is_refused(aug: Augmentation, shape: torch.Size) -> bool:
    """True if images of this shape are refused; AssertionError if that depends on the seed."""
    refused = []
    for seed in range(4):
        try:
            aug.sample(shape, generator=seeded(seed))
        except ValueError:
            refused.append(True)
        else:
            refused.append(False)
    assert len(set(refused)) == 1
    return refused[0]


def expect_same(got: tuple[Tensor, Any], want: tuple[Tensor, Any]) -> None:
    """AssertionError unless images and targets are equal to the bit."""
    for one, two in zip(list_tensors(got), list_tensors(want), strict=True):
        expect_bits(one, two)


def list_tensors(values: Any) -> list[Tensor]:
    """Tensors of images and targets."""
    if isinstance(values, Tensor):
        return [values]
    return [tensor for value in values for tensor in list_tensors(value)]


class Twins:
    """An augmentation that lives through calls, changes and copies, beside one that is built anew for every call.

    Every step takes plain values and is written down, so that steps can be replayed from a file.
    """

    def __init__(self, described: Described) -> None:
        self.steps: list[list[Any]] = [["start", described]]
        self.described, self.aug, self.training = copy.deepcopy(described), build(described), True

    def call(self, seed: int, batch: int, height: int, width: int) -> None:
        """Call both with images and labels, and compare everything that came of it."""
        self.steps.append(["call", seed, batch, height, width])
        fresh = build(self.described).train(self.training)
        images = torch.rand(batch, 1, height, width, generator=seeded(seed))
        labels, maps = torch.arange(batch), torch.rand(batch, 2, 3, generator=seeded(seed))
        kept = self.aug.last_plan
        results = []
        for aug in (self.aug, fresh):
            try:
                results.append(aug(images, labels, maps=maps, generator=seeded(seed)))
            except ValueError as error:
                results.append(str(error))
        tried["compose"] += batch
        calls["compose"] += 1
        if isinstance(results[1], str):
            assert results[0] == results[1]
            assert self.aug.last_plan is kept
            return
        expect_same(results[0], results[1])
        assert self.aug.last_plan is not None
        assert fresh.last_plan is not None
        assert self.aug.last_plan.to_dict() == fresh.last_plan.to_dict()
        pairs = zip(self.aug.modules(), fresh.modules(), strict=True)
        for one, two in pairs:
            if isinstance(one, OneOf) and isinstance(two, OneOf) and two.last_choice is not None:
                assert one.last_choice is not None
                assert torch.equal(one.last_choice, two.last_choice)

    def change(self, place: int, name: str, value: Any) -> None:
        """Change a setting of one of the augmentations, if it has one of that name."""
        self.steps.append(["change", place, name, value])
        parts, described = self._list_parts(self.aug), self._list_described(self.described)
        part, words = parts[place % len(parts)], described[place % len(parts)]
        if name in part.settings:
            setattr(part, name, value)
            words[1][name] = value

    def change_wrongly(self, place: int, name: str) -> None:
        """Set a value that has to be refused, and changes nothing."""
        self.steps.append(["change_wrongly", place, name])
        parts = self._list_parts(self.aug)
        part = parts[place % len(parts)]
        if name not in part.settings:
            return
        before = repr(self.aug)
        try:
            setattr(part, name, WRONG[name])
        except ValueError:
            assert repr(self.aug) == before
        else:
            raise AssertionError(f"{part} took {name}={WRONG[name]!r}")

    def switch(self, training: bool) -> None:
        """Switch between training and eval mode."""
        self.steps.append(["switch", training])
        self.training = training
        self.aug.train(training)

    def replace(self, way: str) -> None:
        """Go on with a copy."""
        self.steps.append(["replace", way])
        self.aug = copy.deepcopy(self.aug) if way == "deepcopy" else pickle.loads(pickle.dumps(self.aug))

    def check(self) -> None:
        """AssertionError unless both have the same settings."""
        assert repr(self.aug) == repr(build(self.described))
        assert self.aug.training == self.training

    @classmethod
    def replay(cls, steps: list[list[Any]]) -> None:
        """Carry out steps that were written down."""
        (_, described), *later = steps
        twins = cls(described)
        for name, *values in later:
            getattr(twins, name)(*values)
            twins.check()

    def _list_parts(self, aug: Augmentation) -> list[Augmentation]:
        return [module for module in aug.modules() if isinstance(module, Augmentation)]

    def _list_described(self, described: Described) -> list[Described]:
        return [described, *(part for member in described[2] for part in self._list_described(member))]


class SeveralMachine(RuleBasedStateMachine):
    """Random steps in the life of a `Compose` or a `OneOf`."""

    twins: Twins
    latest: ClassVar[list[list[Any]]]  # steps of the last machine, to be kept if it failed

    @initialize(described=describe_several())
    def start(self, described: Described) -> None:
        self.twins = Twins(described)
        SeveralMachine.latest = self.twins.steps

    @rule(
        seed=st.integers(0, 2**31),
        batch=st.integers(0, 6),
        height=st.integers(1, 12),
        width=st.sampled_from([8, 12, 7]),
    )
    def call(self, seed: int, batch: int, height: int, width: int) -> None:
        self.twins.call(seed, batch, height, width)

    @rule(
        place=st.integers(0, 9),
        setting=st.sampled_from(sorted({(n, s) for n in SETTINGS for s in SETTINGS[n]})),
        data=st.data(),
    )
    def change(self, place: int, setting: tuple[str, str], data: st.DataObject) -> None:
        self.twins.change(place, setting[1], data.draw(SETTINGS[setting[0]][setting[1]]))

    @rule(place=st.integers(0, 9), name=st.sampled_from(sorted(WRONG)))
    def change_wrongly(self, place: int, name: str) -> None:
        self.twins.change_wrongly(place, name)

    @rule(training=st.booleans())
    def switch(self, training: bool) -> None:
        self.twins.switch(training)

    @rule(way=st.sampled_from(["deepcopy", "pickle"]))
    def replace(self, way: str) -> None:
        self.twins.replace(way)

    @invariant()
    def same_settings(self) -> None:
        if hasattr(self, "twins"):
            self.twins.check()
