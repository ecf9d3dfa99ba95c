"""A search for the worst parts of a model of four layers, as far as its result goes."""

from typing import Any, cast

import numpy as np

from workers.diagnosis.attribute.search import Measured, Search
from workers.diagnosis.attribute.sites import Scope, Site

LAYERS = [Site(f"layers.{layer}", "layer", layer, ()) for layer in range(4)]
MODULES = [Site(f"layers.{layer}.mlp.up_proj", "module", layer, ()) for layer in range(4)]
HEAD = Site("lm_head", "head", None, ())
ASKED = Scope(chosen=(*LAYERS, *MODULES, HEAD))


def search(*tried: Site, left_out: tuple[Site, ...] = ()) -> Search:
    changed = [*LAYERS, *MODULES, HEAD]
    found = {one.name: Measured(one, np.ones(3, dtype=np.float32), 1, 0) for one in tried}
    nothing = cast("Any", None)
    return Search(nothing, changed, ("layer", "module"), 3.0, 2, nothing, found, left_out=list(left_out))


def broken_search(*broken: Site, partly: tuple[Site, ...] = (), fine: tuple[Site, ...] = ()) -> Search:
    done = search(*broken, *partly, *fine)
    for one in broken:
        done.found[one.name] = Measured(one, np.full(3, np.nan, dtype=np.float32), 1, 0)
    for one in partly:
        done.found[one.name] = Measured(one, np.array([1, np.nan, 3], dtype=np.float32), 1, 0)
    return done
