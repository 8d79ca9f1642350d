"""The four phases of RMG-PMSI in a plain torch loop: `python examples/progressive_loop.py` prints accuracy."""

import time

import torch
from torch import Tensor

from mosaicaug import RecursiveMosaic, apply, cross_entropy
from pmsi import PMSI, make_backbone
from pmsi.data.typefaces import TYPEFACES, render_typefaces

SIZE, BATCH, EPOCHS = 40, 24, 2
STAGES = 3  # the deepest ones of the backbone; phase n trains stage n on mosaics of r = STAGES - n recursions
MEAN, STD = (123.7, 116.3, 103.5), (58.4, 57.1, 57.4)  # of ImageNet, in units of uint8 pixels


def normalise(images: Tensor) -> Tensor:
    """Network input of uint8 images ``[B, 3, H, W]``."""
    return (images - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


start = time.perf_counter()
torch.manual_seed(0)
(images, labels), (test_images, test_labels) = render_typefaces(SIZE, train_per_class=12, test_per_class=8)
print(f"{len(images)} images of words in {len(TYPEFACES)} typefaces to train on, {len(test_images)} to test on")

network = PMSI(make_backbone("mobilenet_v2"), len(TYPEFACES), stages=STAGES, feature_width=128, hidden_width=64)
for module in network.modules():
    if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
        module.momentum = 0.3  # so that running statistics settle within a few steps
optimizer = torch.optim.SGD(network.parameters(), lr=0.03, momentum=0.9, weight_decay=5e-4)
mosaic = RecursiveMosaic(r=STAGES, permutation="cyclic", per="batch")
names = [f"stage {n + 1} (r = {STAGES - n})" for n in range(STAGES)] + ["concat (raw)"]

for epoch in range(1, EPOCHS + 1):
    network.train()
    totals = torch.zeros(STAGES + 1)
    batches = torch.randperm(len(images))[: len(images) // BATCH * BATCH].view(-1, BATCH)
    for rows in batches:
        # Plans of r = 3, 2, 1, 0: the shallowest stage sees the finest mosaic, the concat sees the raw images.
        plans = mosaic.sample_phases((BATCH, 3, SIZE, SIZE))
        for phase, plan in enumerate(plans):
            logits = network(normalise(apply(images[rows], plan)))
            last = phase == STAGES
            loss = cross_entropy(logits.concat if last else logits.stages[phase], labels[rows])
            optimizer.zero_grad(set_to_none=False)  # idle layers keep weight decay and momentum
            (2 * loss if last else loss).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            totals[phase] += loss.detach()
    means = zip(names, (totals / len(batches)).tolist(), strict=True)
    print(f"epoch {epoch}: losses " + ", ".join(f"{name} {loss:.2f}" for name, loss in means))

network.eval()
with torch.inference_mode():
    answers = network(normalise(test_images)).mix.argmax(1)  # the sum of all four logits
print(f"test accuracy {100 * (answers == test_labels).float().mean():.0f} % after {time.perf_counter() - start:.0f} s")
