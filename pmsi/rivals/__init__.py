"""The methods that Table V compares with, and the plain baseline, on the same backbones and for the same trainer.

Each file holds a network, a `pmsi.model.Network` made from a backbone and a number of classes, and `RECIPE`: what its
paper or published code sets otherwise than recipe "paper", as far as a `pmsi.config.Recipe` can say it. Where a
publication says nothing on MobileNetV2, the file says what was chosen.

>>> from pmsi.backbones import make_backbone
>>> from pmsi.rivals import RIVALS
>>> network = RIVALS["baseline"](make_backbone("resnet18"), 200).eval()
>>> network(torch.rand(2, 3, 64, 64)).mix.shape
torch.Size([2, 200])
"""

from collections.abc import Callable, Mapping
from typing import Any

from pmsi.model import Network
from pmsi.rivals import api, baseline, bcnn, cnl, hbp, pairwise, pmg
from pmsi.rivals.api import API
from pmsi.rivals.baseline import Baseline
from pmsi.rivals.bcnn import BCNN
from pmsi.rivals.cnl import CNL
from pmsi.rivals.hbp import HBP
from pmsi.rivals.pairwise import PairwiseConfusion
from pmsi.rivals.pmg import PMG

RIVALS: dict[str, Callable[..., Network]] = {
    "baseline": Baseline,
    "bcnn": BCNN,
    "hbp": HBP,
    "pc": PairwiseConfusion,
    "api": API,
    "cnl": CNL,
    "pmg": PMG,
}

# What each sets otherwise than recipe "paper".
RECIPES: Mapping[str, dict[str, Any]] = {
    "baseline": baseline.RECIPE,
    "bcnn": bcnn.RECIPE,
    "hbp": hbp.RECIPE,
    "pc": pairwise.RECIPE,
    "api": api.RECIPE,
    "cnl": cnl.RECIPE,
    "pmg": pmg.RECIPE,
}

__all__ = ["API", "BCNN", "CNL", "HBP", "PMG", "RECIPES", "RIVALS", "Baseline", "PairwiseConfusion"]
