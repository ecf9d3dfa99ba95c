"""What a part's nats are held against: the part swapped by itself, and noise of the same norm.

The control is the part swapped by itself. Anything but exactly 0 shows a fault of the machinery: a
module changed in place, a state of another batch shape, a weight rounded on its way.

The isotropic twin is noise of the same norm in a random direction, in the place of the part's error. If KL(part) /
KL(twin) is above 1, the error points where the model is sensitive: another method with as many bits could do better. At
1 it is mere size. Below 1 the method has turned the error to where it does not hurt.
"""

from __future__ import annotations

import numpy as np

from app.contracts.report import Mean
from workers.diagnosis.attribute.mixing import CONTROL, Mode
from workers.diagnosis.attribute.sites import Site
from workers.diagnosis.attribute.swapping import Swapper
from workers.distributions.intervals import FEWEST_CLUSTERS
from workers.measuring.means import ratio


def batches_of(swapper: Swapper) -> int:
    """Half of the subset's batches, or as many more as hold the windows that an interval needs: what twins are run
    on."""
    ends = [end for _, end in swapper.batches]
    enough = next((count for count, end in enumerate(ends, 1) if end >= FEWEST_CLUSTERS), len(ends))
    return max(enough, len(ends) // 2)


def possible(swapper: Swapper, site: Site) -> bool:
    """Whether the part has the same shapes in both models: the error has a norm."""
    ours, theirs = (model.runner.skeleton.info for model in (swapper.reference, swapper.candidate))
    return all(
        other in theirs.tensors and ours.tensors[name].shape == theirs.tensors[other].shape
        for name, other in zip(site.tensors, site.tensors_in(theirs), strict=True)
    )


def twin_ratio(swapper: Swapper, site: Site, *, twins: int, seed: int) -> Mean | None:
    """KL of the part over the mean KL of its twins, paired by position; None where the twins cost nothing."""
    batches = batches_of(swapper)
    part = swapper.kl([site], batches=batches)
    noise = [swapper.kl([site], mode=Mode("twin", seed + number), batches=batches) for number in range(twins)]
    where = swapper.subset.where.select(np.arange(len(part)))
    return ratio(part, np.mean(noise, axis=0), where, seed=seed)


# On so many batches: one shows all that can go wrong.
BATCHES = 1


def control(swapper: Swapper, site: Site) -> float:
    """Largest KL of any position if the part is swapped by itself, nats; infinite if one is not finite."""
    kl = swapper.kl([site], mode=CONTROL, batches=BATCHES)
    return float(np.max(np.where(np.isfinite(kl), kl, np.inf), initial=0.0))
