"""All hostile inputs, by what is read."""

from __future__ import annotations

from collections.abc import Sequence

from tests.hostile.caches import CACHES
from tests.hostile.case import Case
from tests.hostile.checkpoints import CHECKPOINTS
from tests.hostile.disks import DISKS
from tests.hostile.downloads import DOWNLOADS
from tests.hostile.images import IMAGES
from tests.hostile.plans import PLANS
from tests.hostile.runs import RUNS
from tests.hostile.tables import TABLES
from tests.hostile.uploads import UPLOADS

TABLE: dict[str, Sequence[Case]] = {
    "Images and folders of images": IMAGES,
    "Tables of data sets": TABLES,
    "Checkpoints and weights": CHECKPOINTS,
    "Download servers and archives": DOWNLOADS,
    "Caches of decoded images": CACHES,
    "Folders of runs": RUNS,
    "Plans": PLANS,
    "Uploads to `pmsi serve`": UPLOADS,
    "Disks and processes": DISKS,
}
