"""The properties by name, the search for cases that break them, and files of such cases."""

from __future__ import annotations

import hashlib
import json
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

from tests.properties import algebra, annotated, drawn, pixels
from tests.properties.cases import (
    COPIED_OVERLAYS,
    DTYPE_NAMES,
    LAYOUTS,
    OWN_TILES,
    Case,
    draw_cases,
)

FAILURES = Path(__file__).parent / "failures"
MACHINE = "Compose and OneOf"  # the property whose cases are steps
tried: Counter[str] = Counter()  # cases, by property


class Property(NamedTuple):
    """A check of cases.

    Attributes:
        check: raises for a case that breaks the property.
        cases: strategy of its cases.
        examples: number of cases in `make test`.
        share: of a soak's time, beside those of the others.
    """

    check: Callable[[Case], None]
    cases: st.SearchStrategy[Case]
    examples: int
    share: float


class Failure(NamedTuple):
    """A case that breaks a property: the smallest that was found.

    Attributes:
        name: of the property.
        case: fields of the case, or steps.
        error: type, place and message.
    """

    name: str
    case: Any
    error: str


def _plans(**kinds: Any) -> st.SearchStrategy[Case]:
    """Plans alone: plain images of few pixels."""
    return draw_cases(pixels=False, stored=False, **kinds)


def _with_gradient(case: Case) -> Case:
    return replace(case, dtype="float64" if case.seed % 2 else "float32", out_dtype="", into=False, special=False)


def _in_large_blocks(case: Case) -> Case:
    return replace(case, small_blocks=False)


def _with_defaults(case: Case) -> Case:
    return replace(case, out_dtype="", out_layout="", into=False, mean=False, std=False)


def _draw_calls() -> st.SearchStrategy[Case]:
    """Images and an augmentation for them."""
    still = _plans(tiles=("home",), overlays=("none",), blends=("opaque",), batches=(0, 9))
    words = {
        "augmentation": drawn.describe_any(),
        "dtype": st.sampled_from(DTYPE_NAMES),
        "layout": st.sampled_from(LAYOUTS),
        "channels": st.integers(1, 4),
        "frames": st.sampled_from([0, 0, 2]),
    }
    return st.builds(replace, still, **words)


PROPERTIES = {
    "pixels": Property(pixels.check_pixels, draw_cases(), 70, 10),
    "many plans": Property(
        pixels.check_pixels, draw_cases(batches=(192, 256), sides=(1, 8)).map(_in_large_blocks), 10, 30
    ),
    "pixels of larger images": Property(pixels.check_pixels, draw_cases(batches=(1, 3), sides=(17, 150)), 8, 2),
    "kernel": Property(pixels.check_kernel, draw_cases(batches=(1, 2), sides=(1, 12)), 8, 3),
    "one launch": Property(
        pixels.check_launch,
        draw_cases(batches=(1, 2), sides=(1, 8), stored=False).map(_with_defaults),
        3,
        1,
    ),
    "gradients": Property(pixels.check_gradients, draw_cases().map(_with_gradient), 20, 1),
    "masks": Property(pixels.check_masks, draw_cases(), 25, 1),
    "labels": Property(annotated.check_labels, _plans(tiles=OWN_TILES, batches=(0, 9)), 25, 1),
    "semantic labels": Property(
        annotated.check_snapmix_labels,
        _plans(tiles=OWN_TILES, blends=("opaque",), batches=(0, 4), sides=(1, 8)),
        20,
        1,
    ),
    "boxes": Property(annotated.check_boxes, _plans(overlays=COPIED_OVERLAYS, batches=(0, 4), sides=(1, 12)), 40, 1),
    "resampled boxes": Property(
        annotated.check_resampled_boxes, _plans(tiles=("home",), batches=(0, 4), sides=(1, 12)), 30, 0.5
    ),
    "fractions of pixels": Property(annotated.check_fractions, _plans(batches=(0, 4), sides=(1, 4)), 20, 0.5),
    "keypoints": Property(annotated.check_keypoints, _plans(tiles=OWN_TILES, batches=(0, 4), sides=(1, 12)), 40, 1),
    "algebra": Property(algebra.check_algebra, _plans(batches=(0, 8)), 40, 1),
    "serialisation": Property(algebra.check_serialisation, _plans(batches=(0, 16)), 20, 0.5),
    "refusals": Property(algebra.check_refusals, _plans(batches=(0, 16)), 40, 0.5),
    "augmentations": Property(drawn.check_augmentation, _draw_calls(), 50, 2),
}
SHARES = {name: prop.share for name, prop in PROPERTIES.items()} | {MACHINE: 1.0}
STATEFUL_EXAMPLES = 15


def search(name: str, examples: int, random: int | None = None, *, shrink: bool = True) -> list[Failure]:
    """Try random cases of one property; the same ones in every run if ``random`` is None.

    Args:
        name: of the property.
        examples: number of cases.
        random: seed of Hypothesis.
        shrink: reduce what fails to its smallest case.

    Returns:
        One failure for each place where the check failed; the smallest case of each.
    """
    phases = [Phase.explicit, Phase.generate, *([Phase.shrink] if shrink else [])]
    chosen = settings(
        max_examples=examples,
        derandomize=random is None,
        database=None,
        deadline=None,
        phases=phases,
        suppress_health_check=list(HealthCheck),
        stateful_step_count=12,
        print_blob=False,
    )
    found: dict[str, Failure] = {}  # the last of each kind is the smallest: Hypothesis ends with it
    try:
        if name == MACHINE:
            tried[name] += examples
            machine = drawn.SeveralMachine if random is None else seed(random)(drawn.SeveralMachine)
            run_state_machine_as_test(machine, settings=chosen)
        else:
            _make_test(name, chosen, random, found)()
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        if name == MACHINE:
            place = describe_error(error)
            found[place] = Failure(name, drawn.SeveralMachine.latest, place)
        if not found:
            raise
    return list(found.values())


def _make_test(name: str, chosen: settings, random: int | None, found: dict[str, Failure]) -> Callable[[], None]:
    check, cases = PROPERTIES[name].check, PROPERTIES[name].cases

    def try_case(case: Case) -> None:
        tried[name] += 1
        try:
            check(case)
        except Exception as error:
            place = describe_error(error)
            found[place.split(": ")[0]] = Failure(name, case.to_dict(), place)
            raise

    test: Callable[[], None] = chosen(given(case=cases)(try_case))
    return test if random is None else seed(random)(test)


def describe_error(error: BaseException) -> str:
    """Type, file and line, and message of an error, in one line."""
    if isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "site-packages" not in frame.filename]
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "nowhere"
    return f"{type(error).__name__} at {place}: {' '.join(str(error).split())[:300]}"


def keep(failure: Failure, folder: Path = FAILURES) -> Path:
    """Write a failure to a file, named after the property and the case."""
    text = json.dumps(failure._asdict(), indent=1)
    path = folder / f"{failure.name.replace(' ', '-')}-{hashlib.sha256(text.encode()).hexdigest()[:8]}.json"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def replay(path: Path) -> None:
    """Try the case of a file again: raises if it still fails."""
    kept = json.loads(path.read_text(encoding="utf-8"))
    if kept["name"] == MACHINE:
        drawn.Twins.replay(kept["case"])
    else:
        PROPERTIES[kept["name"]].check(Case(**kept["case"]))
