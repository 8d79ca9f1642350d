"""Model cards in Markdown (Mitchell et al. 2019): of a run, and of an exported file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pmsi.evaluation.robustness import CORRUPTIONS
from pmsi.evaluation.statistics import list_classes, measure_interval
from pmsi.experiments.folder import Predictions
from pmsi.experiments.results import Study, list_runs
from pmsi.report.exports import exports_table
from pmsi.report.mistakes import answers_table, find_predictions
from pmsi.report.sections import CORRUPTION_LABELS
from pmsi.report.table import Table
from pmsi.runtime.files import write_text

_EXTREMES = 5  # best and worst classes that are named
LICENCES: Mapping[str, str] = {
    "cub": "CUB-200-2011: photographs of Flickr users; its authors allow research and teaching that is not commercial.",
    "cars": "Stanford Cars: photographs from the web; its authors allow research that is not commercial.",
    "aircraft": "FGVC-Aircraft: photographs of airliners.net users; for research that is not commercial alone.",
    "typefaces": "Words rendered from the fonts that matplotlib ships (Bitstream Vera, DejaVu, STIX: free licences).",
}
_UNKNOWN = "Not known to this program: say here who made the images, and what their licence allows."
_LIMITS = (
    (
        "It knows the classes below alone, and gives one of them for every image, also where none of them is shown: "
        'keep the threshold of "not sure", and do not read a low confidence as a class.'
    ),
    (
        "Its accuracy was measured on images like those it was trained on. Other places, cameras or seasons may be "
        "much harder; test it on some of your own first."
    ),
    "It must not decide alone where a mistake harms people, animals or habitats, nor identify or judge people.",
)


def write_card(study: Study, path: Path) -> None:
    """Write the model card of a run or test (table "run").

    Raises:
        OSError: it could not be written; what was there stays.
    """
    results = study.results
    title = f"Model card: {study.base.network} on {results['data']['name']}"
    write_text(path, _join([title, *_describe_network(study)]))


def write_export_card(values: Mapping[str, Any], path: Path, study: Study | None) -> None:
    """Write the model card of an exported file.

    Args:
        values: what the JSON beside the file holds.
        path: of the card.
        study: results of the run that it comes from; None where they are not there.

    Raises:
        OSError: it could not be written; what was there stays.
    """
    about = values["description"]
    parts = [
        f"Model card: {values['file']}",
        (
            f"Format {values['format']}, {values['bytes'] / 1e6:.2f} MB, weights in {about['precision']}. It takes "
            f"bytes, uint8 [B, 3, {about['crop']}, {about['crop']}] in RGB: both sides of the image resized to "
            f"{about['resize']} px ({about['filter']}), then the central crop. It gives probabilities of "
            f"{len(about['classes'])} classes; "
            "normalisation, temperature and softmax are inside, and names of the classes in its metadata."
        ),
        "## Against its checkpoint",
        _to_markdown(exports_table([values], f"{values['images']} images")),
    ]
    if study is None:
        parts += [*_describe_data(about["data"], None), *_list_limits(about["classes"])]
    else:
        parts += _describe_network(study)
    write_text(path, _join(parts))


def _describe_network(study: Study) -> list[str]:
    """Sections about a network that was trained and tested."""
    results, recipe = study.results, study.base
    (run,) = list_runs(results["tables"])
    return [
        *_describe_data(results["data"]["name"], results["data"]["protocol"]),
        "## Network and training",
        (
            f"{recipe.network} on {recipe.backbone}, {recipe.stages} stages, {recipe.test_side} px; recipe "
            f'"{results["recipe"]["name"]}": {recipe.epochs} epochs, augmentation {recipe.augmentation}, batches of '
            f"{recipe.batch_size}, seed {run['seed']}; backbone weights {results['weights']}."
        ),
        "## Accuracy",
        *_describe_accuracy(study, run),
        "## Robustness",
        _describe_robustness(results),
        "## Cost",
        _describe_cost(results),
        *_list_limits(study.classes),
        "## Versions",
        ", ".join(f"{name} {value}" for name, value in results["environment"].items()) + f"; {results['created']}.",
    ]


def _describe_data(name: str, protocol: str | None) -> list[str]:
    licence = next((text for key, text in LICENCES.items() if name.partition("-")[0] == key), _UNKNOWN)
    return ["## Data", protocol or f"Trained on {name}.", f"Licence: {licence}"]


def _describe_accuracy(study: Study, run: Mapping[str, Any]) -> list[str]:
    lines = [f"Concat {run['concat']:.2f} %, Mix {run['mix']:.2f} % of the test images are right."]
    found = find_predictions(study)
    if found is None or found.answers is None:
        return lines
    low, high = measure_interval(found.labels, found.answers.classes[:, 0])
    lines[0] += f" The 95 % interval of what it answers by is {low:.1f} to {high:.1f} % (bootstrap over images)."
    lines[0] += " Another seed of the training gives another network; one seed says nothing of that spread."
    lines.append(_to_markdown(answers_table(found.answers, found.labels)))
    lines += _describe_extremes(study, found)
    return lines


def _describe_extremes(study: Study, found: Predictions) -> list[str]:
    assert found.answers is not None
    scored = [
        (one.accuracy, one.name, one.images)
        for one in list_classes(found.labels, found.answers.classes[:, 0], study.classes)
        if one.accuracy is not None
    ]
    scored.sort(key=lambda one: one[0])
    shown = scored if len(scored) <= 2 * _EXTREMES else [*scored[:_EXTREMES], *scored[-_EXTREMES:]]
    rows = tuple((name, str(images), f"{accuracy:.0f}") for accuracy, name, images in shown)
    return ["Hardest and easiest classes:", Table("", ("class", "test images", "found, %"), rows).to_markdown()]


def _describe_robustness(results: Mapping[str, Any]) -> str:
    measured = [one for runs in results.get("robustness", {}).values() for one in runs]
    if not measured:
        return "Not measured on corrupted images."
    kinds = [name for name in ("clean", *CORRUPTIONS) if name in measured[0]]
    rows = tuple(
        (CORRUPTION_LABELS.get(name, name), *(f"{measured[0][name][which]:.1f}" for which in ("concat", "mix")))
        for name in kinds
    )
    return Table("", ("test images", "Concat, %", "Mix, %"), rows).to_markdown()


def _describe_cost(results: Mapping[str, Any]) -> str:
    cost = results.get("cost")
    if cost is None:
        return "Not counted; `pmsi describe` says it."
    return (
        f"{cost['parameters'] / 1e6:.2f} million parameters; {cost['macs'] / 1e6:.0f} million multiply-accumulates for "
        "one image."
    )


def _list_limits(classes: Sequence[str]) -> list[str]:
    lines = "\n".join(f"- {line}" for line in _LIMITS)
    return ["## What it must not be used for", lines, "## Classes", ", ".join(classes) + "."]


def _to_markdown(table: Table) -> str:
    return "\n".join([table.caption, "", table.to_markdown(), *table.notes])


def _join(parts: Sequence[str]) -> str:
    title, *rest = parts
    return "\n\n".join([f"# {title}", *(part.strip() for part in rest)]) + "\n"
