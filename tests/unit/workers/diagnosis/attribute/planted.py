"""Damage that is planted, measured through no model: what a search is tried on."""

from dataclasses import dataclass, field

import numpy as np

from workers.diagnosis.attribute.sites import Site

POSITIONS = 20  # of a window


@dataclass
class Planted:
    """A swapper over no model: the parts of `worst` cost 5 nats, all others 0.1, with noise. Layers and the head cost
    what those of a model of this depth do."""

    layers: int
    worst: frozenset[str]
    head: float = 8.0
    ends: tuple[int, ...] = (4, 8)
    asked: list[tuple[str, int]] = field(default_factory=list)

    @property
    def batches(self):
        return list(zip((0, *self.ends), self.ends, strict=False))

    def positions(self, batches):
        return self.ends[batches - 1] * POSITIONS

    def cost(self, sites):
        (site,) = sites
        first = site.layer if site.layer is not None else 0 if site.kind == "embedding" else self.layers
        return (self.layers - first + 2 * self.head) / (self.layers + self.head)

    def kl(self, sites, *, batches):
        (site,) = sites
        self.asked.append((site.name, batches))
        noise = np.random.default_rng(len(site.name)).uniform(0, 0.01, self.positions(batches))
        return ((5.0 if site.name in self.worst else 0.1) + noise).astype(np.float32)

    def passes(self, sites):
        """What was run, each batch of a part once, by the windows in it."""
        most = {}
        for name, batches in self.asked:
            most[name] = max(batches, most.get(name, 0))
        return sum(self.cost([sites[name]]) * self.ends[n - 1] / self.ends[-1] for name, n in most.items())


def parts(layers):
    """In the model's order: what stands before the layers, each layer with two modules, what stands behind."""
    found = [Site("embed_tokens", "embedding", None, ())]
    for layer in range(layers):
        found.append(Site(f"layers.{layer}", "layer", layer, ()))
        found += [Site(f"layers.{layer}.{name}", "module", layer, ()) for name in ("mlp.up_proj", "mlp.down_proj")]
    return [*found, Site("norm", "norm", None, ()), Site("lm_head", "head", None, ())]
