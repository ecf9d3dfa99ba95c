"""The controls: a part swapped by itself, which must change nothing, to the last bit.

Anything but exactly 0 says that the machinery, not the part, is measured: a module that was changed in place, a state
of another batch shape, a weight that was rounded on its way.
"""

from __future__ import annotations

import numpy as np

from workers.diagnosis.attribute.mixing import CONTROL
from workers.diagnosis.attribute.sites import Site
from workers.diagnosis.attribute.swapping import Swapper

# On so many batches: one shows all that can go wrong.
BATCHES = 1


def control(swapper: Swapper, site: Site) -> float:
    """Largest KL of any position, nats; infinite where one is not finite."""
    kl = swapper.kl([site], mode=CONTROL, batches=BATCHES)
    return float(np.max(np.where(np.isfinite(kl), kl, np.inf), initial=0.0))
