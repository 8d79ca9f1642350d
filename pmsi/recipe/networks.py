"""Networks by their names in a recipe, and the facts about each that decide which recipes fit it."""

from __future__ import annotations

from typing import Literal, NamedTuple

NetworkName = Literal["pmsi", "baseline", "bcnn", "hbp", "pc", "api", "cnl", "pmg"]


class NetworkFacts(NamedTuple):
    """Facts about a network that decide which recipes fit it.

    Args:
        where: "module:class" of its `pmsi.models.base.Network`.
        outputs: it trains one output per stage and the concat, or one alone.
        interacts: it has the multi-stage interaction.
        compares_images: its loss compares images: those of the two "halves" of a batch, or of one and other "classes".
    """

    where: str
    outputs: Literal["stages", "one"] = "one"
    interacts: bool = False
    compares_images: Literal["halves", "classes"] | None = None


# A network is one line here (and its name in `NetworkName`), and one file.
NETWORKS: dict[NetworkName, NetworkFacts] = {
    "pmsi": NetworkFacts("pmsi.models.pmsi:PMSI", outputs="stages", interacts=True),
    "baseline": NetworkFacts("pmsi.models.baseline:Baseline"),
    "bcnn": NetworkFacts("pmsi.models.bcnn:BCNN"),
    "hbp": NetworkFacts("pmsi.models.hbp:HBP"),
    "pc": NetworkFacts("pmsi.models.pairwise_confusion:PairwiseConfusion", compares_images="halves"),
    "api": NetworkFacts("pmsi.models.api_net:API", compares_images="classes"),
    "cnl": NetworkFacts("pmsi.models.cnl:CNL"),
    "pmg": NetworkFacts("pmsi.models.pmg:PMG", outputs="stages"),
}
