"""How the nats of a part spread over kinds of token: it may hurt numbers where another one hurts JSON.

Of a swapped part all that this needs is the KL at each position, which the search has of every part that it measured:
no model is run again, and of a part only sums by cluster and kind are made, while they become means. Gaps have no KL
by position: theirs is summed by kind where it is summed at all (`readout`).

Names: T scored positions of the subset, or the first of them, N windows that gaps are measured on, L tokens of a
window, W windows, K clusters, C kinds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from app.contracts.report import Mean
from app.kinds.attribute.blocks import SiteClass
from app.kinds.attribute.report import Site, SubsetClass, SubsetClasses
from workers.diagnosis.attribute.subset import Subset
from workers.diagnosis.attribute.sums import Clusters, Sums
from workers.distributions.significance import holm
from workers.distributions.token_values import Positions
from workers.measuring.classify import Classified
from workers.measuring.means import POSITIVE, Support
from workers.measuring.summary import as_mean
from workers.measuring.token_classes import difference
from workers.text.token_classes.catalogue import CLASSES, NONE
from workers.text.windows import Corpus

Column = NDArray[np.floating[Any]]
# A difference, and the p value of none.
_Against = tuple[Mean | None, float | None]
_REAL: Support = (-math.inf, math.inf)
_SHARE: Support = (0.0, 1.0)
# Of the ranked parts, those whose kinds are reported: of one that costs a thousandth there is nothing to spread.
MOST_PARTS = 40


@dataclass(frozen=True)
class Kinds:
    """`masks_CT`: which scored position of the subset is of which kind, in the order of `names`; `where` they are. The
    last kind is that of positions in no class; kinds that no position is of are left out."""

    names: tuple[str, ...]
    masks_CT: NDArray[np.bool_]
    where: Positions
    seed: int

    @classmethod
    def of(cls, found: Classified, where: Positions, *, seed: int) -> Kinds:
        """From the classes of the subset's positions."""
        every = found.with_none()
        names = tuple(name for name in (*(one.name for one in CLASSES), NONE) if every[name].any())
        return cls(names, np.stack([every[name] for name in names]), where, seed)

    def block(self, whole_T: Column, sites: Sequence[Site]) -> SubsetClasses:
        """What a report shows of the kinds themselves and of the whole candidate's KL at all positions; `sites` are the
        parts with their kinds."""
        masks = dict(zip(self.names, self.masks_CT, strict=True))
        return _block(masks, self.where.document, self.spread(whole_T), sites)

    def spread(
        self, kl_T: Column, *, restored: Sequence[Mean] | None = None, judged: bool = False
    ) -> tuple[SiteClass, ...]:
        """Of each kind that has a finite one among the first T positions: its mean KL and its share of the sum.
        `restored`: of every kind what restoring gains. Where it is `judged`, of every class its difference from all
        other positions, with a p value that is adjusted for nothing."""
        if not np.isfinite(kl_T).any():
            return ()
        nats = self._sums(kl_T)
        means = nats.means(seed=self.seed, support=POSITIVE)
        shares = self._shares(nats, kl_T).means(seed=self.seed, support=_SHARE)
        told = [mean.ci is not None for mean in means]
        differences: Iterable[_Against] = self._differences(kl_T, told) if judged else repeat((None, None))
        tokens_C = nats.bottom.sum(0).astype(int)
        return tuple(
            SiteClass(
                name=name,
                tokens=int(tokens_C[kind]),
                nats=means[kind],
                share=shares[kind].mean,
                share_ci=shares[kind].ci,
                restored=None if restored is None or restored[kind].mean is None else restored[kind],
                difference=gap,
                p_value=p_value,
            )
            for kind, (name, (gap, p_value)) in enumerate(zip(self.names, differences, strict=False))
            if tokens_C[kind] > 0
        )

    def means(self, column_T: Column) -> tuple[Mean, ...]:
        """Of each kind the mean of a column at the first T positions, where it is finite."""
        if not np.isfinite(column_T).any():
            return (Mean(mean=None, ci=None),) * len(self.names)
        return tuple(self._sums(column_T).means(seed=self.seed, support=_REAL))

    def _sums(self, column_T: Column) -> Sums:
        """Of each kind (C,) its finite values and their number, by cluster. Clusters are those of all finite positions:
        a kind in few of many documents is in few clusters, and its windows are none."""
        finite_T = np.isfinite(column_T)
        where, values_T = self.where.select(np.flatnonzero(finite_T)), column_T[finite_T].astype(np.float64)
        masks_CT = self.masks_CT[:, : len(column_T)][:, finite_T]
        windows, first_W, window_T = np.unique(where.window, return_index=True, return_inverse=True)
        sums = Sums(Clusters.of(where.document[first_W]), (len(self.names),))
        for kind, mask_T in enumerate(masks_CT):
            at = window_T[mask_T]
            top_W = np.bincount(at, weights=values_T[mask_T], minlength=windows.size)
            sums.add(0, top_W, np.bincount(at, minlength=windows.size), at=kind)
        return sums

    def _shares(self, nats: Sums, column_T: Column) -> Sums:
        """Of each kind (C,) its summed values over those of all finite positions, from the `_sums` of a column."""
        finite_T = np.isfinite(column_T)
        _, window_T = np.unique(self.where.window[: len(column_T)][finite_T], return_inverse=True)
        values_T = column_T[finite_T].astype(np.float64)
        total_K = np.bincount(nats.clusters.of_window_N[window_T], weights=values_T, minlength=nats.clusters.count)
        shares = Sums(nats.clusters, nats.shape)
        shares.top, shares.bottom = nats.top.copy(), np.repeat(total_K[:, None], len(self.names), axis=1)
        return shares

    def _differences(self, kl_T: Column, told: Sequence[bool]) -> Iterator[_Against]:
        """Of each kind in turn: the difference alone where too few clusters have told no interval of its mean; nothing
        of the tokens in none, of which nothing is stated."""
        finite_T = np.isfinite(kl_T)
        where, values_T = self.where.select(np.flatnonzero(finite_T)), kl_T[finite_T].astype(np.float64)
        masks_CT = self.masks_CT[:, : len(kl_T)][:, finite_T]
        for name, mask_T, enough in zip(self.names, masks_CT, told, strict=True):
            if name == NONE:
                yield None, None
                continue
            estimate, p_value = difference(values_T, where, mask_T)
            if estimate is not None and not enough:
                yield Mean(mean=estimate.mean, ci=None), None
            else:
                yield None if estimate is None else as_mean(estimate), p_value


@dataclass(frozen=True)
class InsideKinds:
    """Of the windows that gaps are measured on, which predicted token is of which kind: `masks` by its name, (N, L)
    each. Of the end of a window that predicts what the window does not hold, it is none."""

    masks: dict[str, torch.Tensor]
    document_N: NDArray[np.integer[Any]]

    @classmethod
    def of(cls, found: Classified, known_NL: NDArray[np.bool_], document_N: NDArray[np.integer[Any]]) -> InsideKinds:
        """From the classes of the positions that are known, in the order of `inside_positions`."""
        masks = {}
        for name in (one.name for one in CLASSES):
            mask_NL = np.zeros(known_NL.shape, dtype=np.bool_)
            mask_NL[known_NL] = found.masks[name]
            masks[name] = mask_NL
        masks[NONE] = ~np.logical_or.reduce(list(masks.values()))
        return cls({name: torch.from_numpy(mask) for name, mask in masks.items() if mask.any()}, document_N)

    def block(self, whole: tuple[SiteClass, ...], sites: Sequence[Site]) -> SubsetClasses:
        """What a report shows of the kinds, and of the parts that have them."""
        masks = {name: mask.numpy().ravel() for name, mask in self.masks.items()}
        length = next(iter(self.masks.values())).shape[1]
        return _block(masks, np.repeat(self.document_N, length), whole, sites)


def inside_positions(corpus: Corpus, subset: Subset, windows: int, length: int) -> tuple[Positions, NDArray[np.bool_]]:
    """Every position of the first windows of a subset, cut to `length`, whose next token the corpus's window holds; and
    which of all (N, L) these are."""
    columns: dict[str, list[NDArray[Any]]] = {
        name: [] for name in ("document", "window", "position", "context", "token_id")
    }
    known_NL = np.zeros((windows, length), dtype=np.bool_)
    first = 0 if corpus.bos else 1
    for row, number in enumerate(subset.windows[:windows]):
        window = corpus.windows[number]
        at = (subset.starts[row] if subset.starts else 0) + np.arange(length)
        known_NL[row] = at + 1 < len(window.tokens)
        at = at[known_NL[row]]
        columns["document"].append(np.full(at.size, window.document))
        columns["window"].append(np.full(at.size, number))
        columns["position"].append(window.start + first + at)
        columns["context"].append(at + 1)
        columns["token_id"].append(window.tokens[at + 1])
    return Positions(**{name: np.concatenate(parts) for name, parts in columns.items()}), known_NL


def _block(
    masks: Mapping[str, NDArray[np.bool_]],
    document_T: NDArray[np.integer[Any]],
    whole: tuple[SiteClass, ...],
    sites: Sequence[Site],
) -> SubsetClasses:
    return SubsetClasses(
        positions=len(document_T),
        classes=tuple(
            SubsetClass(
                name=one.name,
                title=one.title,
                definition=one.definition,
                tokens=int(masks[one.name].sum()),
                documents=int(np.unique(document_T[masks[one.name]]).size),
                share=float(masks[one.name].mean()),
            )
            for one in CLASSES
            if one.name in masks
        ),
        none=int(masks[NONE].sum()) if NONE in masks else 0,
        absent=tuple(one.title for one in CLASSES if one.name not in masks),
        whole=whole,
        parts=sum(bool(site.classes) for site in sites),
        judged=sum(one.p_value is not None for site in sites for one in site.classes),
    )


def holm_over(sites: Sequence[Site]) -> tuple[Site, ...]:
    """The parts with the p values of their kinds adjusted over all of them."""
    known = iter(holm([one.p_value for site in sites for one in site.classes]))
    return tuple(
        site.model_copy(
            update={"classes": tuple(one.model_copy(update={"p_value": next(known)}) for one in site.classes)}
        )
        for site in sites
    )
