"""Mixtures of experts: does the candidate send tokens to other experts, and why.

Per layer with a router, S and Ŝ the experts that reference and candidate choose for a token:

- *change rate* |S △ Ŝ| / |S ∪ Ŝ| = 1 − |S ∩ Ŝ| / |S ∪ Ŝ|: of the experts that either model chooses, the share that one
  alone does, so that experts chosen more count as those that are lost do; and the share of tokens with any such change;
- of that, what the router itself changes: the candidate's router on the *reference's* inputs; the rest comes with the
  states that reach it;
- *load*: the share of all choices that an expert gets; its shift is the total variation between the two models' loads;
- *boundary margin*: the least logit chosen minus the greatest one not chosen, in the reference (nats, as router logits
  go through a softmax): where it is small, a small change flips the choice (VSRAQ, 2606.05688). Told for the tokens
  whose choice changed and for the others.

Experts are held by transformers as whole tensors, so the models run whole, one after the other: memory is that of the
larger of the two. Router logits and inputs lie in mapped files.

Names: N windows, L tokens of a window, T tokens, E experts, D hidden size, K clusters, P routers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import CheckpointInfo
from app.models.shapes import LAYOUTS
from workers.diagnosis.attribute.sums import Clusters, Sums
from workers.products import widen
from workers.surgery.callbacks import CheckCancelled, Progress, never_cancelled, no_progress

BATCH_TOKENS = 2048
Array = NDArray[np.float64]


@dataclass(frozen=True)
class RoutingShift:
    """Per router, (P) each but the loads: `layers` its layer; `experts` E and `chosen` k of reference and candidate.

    `changed` |S △ Ŝ| / |S ∪ Ŝ|, `any_changed` share of tokens, `own` the part of `changed` that the router alone makes,
    `divergence` KL in nats between the two softmaxes over all experts, `margin_changed`, `margin_same` mean boundary
    margin in nats. `load_reference`, `load_candidate` (P, E): share of all choices.
    """

    layers: tuple[int, ...]
    experts: int
    chosen: tuple[int, int]
    changed: Sums
    any_changed: Sums
    own: Sums
    divergence: Sums
    margin_changed: Sums
    margin_same: Sums
    load_reference: Sums
    load_candidate: Sums

    def load_shift(self, weight_K: Array | None = None) -> Array:
        """(P): ½ Σ_E |load − load'|; `weight_K`: how often each cluster counts."""
        loads = []
        for sums in (self.load_reference, self.load_candidate):
            weight = np.ones(len(sums.top)) if weight_K is None else weight_K
            loads.append(np.einsum("k,kpe->pe", weight, sums.top) / np.einsum("k,kpe->pe", weight, sums.bottom))
        shift: Array = np.abs(loads[0] - loads[1]).sum(-1) / 2
        return shift


def routing_shift(
    reference: CheckpointInfo,
    candidate: CheckpointInfo,
    tokens_NL: torch.Tensor,
    document_N: Sequence[int] | NDArray[np.integer],
    scratch: Path,
    *,
    dtype: torch.dtype = torch.float32,
    progress: Progress = no_progress,
    check_cancelled: CheckCancelled = never_cancelled,
) -> RoutingShift:
    """Runs both models whole on the same tokens.

    Raises `HemostatError(RECIPE_NOT_APPLICABLE)` where one of them has no experts, is packed, or where they differ in
    layers or experts.
    """
    for info in (reference, candidate):
        _check(info)
    clusters = Clusters.of(document_N)
    ours = _Routers.record(reference, tokens_NL, scratch / "reference", dtype, progress, check_cancelled)
    theirs = _Routers.record(candidate, tokens_NL, scratch / "candidate", dtype, progress, check_cancelled)
    if ours.layers != theirs.layers or ours.experts != theirs.experts:
        raise HemostatError(
            ErrorCode.RECIPE_NOT_APPLICABLE,
            f"the reference has {ours.experts} experts in {len(ours.layers)} layers, the candidate {theirs.experts} in "
            f"{len(theirs.layers)}",
            hint="routing is compared between models of the same layers and experts",
        )
    routers = len(ours.layers)
    plain = [Sums(clusters, (routers,)) for _ in range(6)]
    loads = [Sums(clusters, (routers, ours.experts)) for _ in range(2)]
    length = tokens_NL.shape[1]
    for number in range(routers):
        progress("routing", number, routers)
        for window in range(len(tokens_NL)):
            check_cancelled()
            rows = slice(window * length, (window + 1) * length)
            first_TE, second_TE = ours.logits(number, rows), theirs.logits(number, rows)
            own_TE = ours.inputs(number, rows) @ theirs.weights[number].T
            _add(plain, loads, number, window, (first_TE, second_TE, own_TE), (ours.chosen, theirs.chosen))
    progress("routing", routers, routers)
    return RoutingShift(ours.layers, ours.experts, (ours.chosen, theirs.chosen), *plain, *loads)


def _add(
    plain: list[Sums],
    loads: list[Sums],
    number: int,
    window: int,
    logits: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    chosen: tuple[int, int],
) -> None:
    first_TE, second_TE, own_TE = (one.to(torch.float64) for one in logits)
    ours, theirs, alone = _picked(first_TE, chosen[0]), _picked(second_TE, chosen[1]), _picked(own_TE, chosen[1])
    tokens, k = len(first_TE), chosen[0]
    changed_T = _changed(ours, theirs)
    other_T = changed_T > 0
    logp_TE, logq_TE = first_TE.log_softmax(-1), second_TE.log_softmax(-1)
    ranked_TE = first_TE.sort(-1, descending=True).values
    every = first_TE.shape[1] == k  # no expert is left to be chosen instead
    margin_T = torch.zeros(tokens) if every else ranked_TE[:, k - 1] - ranked_TE[:, k]
    values = (
        (changed_T.sum(), tokens),
        (other_T.sum(), tokens),
        (_changed(ours, alone).sum(), tokens),
        ((logp_TE.exp() * (logp_TE - logq_TE)).sum(), tokens),
        (margin_T[other_T].sum(), int(other_T.sum())),
        (margin_T[~other_T].sum(), int((~other_T).sum())),
    )
    for sums, (top, bottom) in zip(plain, values, strict=True):
        sums.add(window, [float(top)], [float(bottom)], at=number)
    for sums, picked_TE in zip(loads, (ours, theirs), strict=True):
        counts = picked_TE.sum(0, dtype=torch.float64)[None].numpy()
        sums.add(window, counts, [float(counts.sum())], at=number)


def _picked(logits_TE: torch.Tensor, count: int) -> torch.Tensor:
    """(T, E) whether an expert is among the `count` of largest logits."""
    return torch.zeros_like(logits_TE, dtype=torch.bool).scatter_(-1, logits_TE.topk(count, dim=-1).indices, value=True)


def _changed(ours_TE: torch.Tensor, theirs_TE: torch.Tensor) -> torch.Tensor:
    """(T) of the experts that either chooses, the share that one alone does."""
    return (ours_TE ^ theirs_TE).sum(-1, dtype=torch.float64) / (ours_TE | theirs_TE).sum(-1)


class _Routers:
    """What one model's routers were given and gave: `layers`, `experts`, `chosen`, `weights` (E, D) of each."""

    def __init__(self, layers: tuple[int, ...], weights: list[torch.Tensor], chosen: int, folder: Path, tokens: int):
        self.layers, self.weights, self.chosen, self.experts = layers, weights, chosen, weights[0].shape[0]
        folder.mkdir(parents=True, exist_ok=True)
        shape = (len(layers), tokens)
        self._logits = np.memmap(folder / "logits.bin", np.float32, "w+", shape=(*shape, self.experts))
        self._inputs = np.memmap(folder / "inputs.bin", np.float32, "w+", shape=(*shape, weights[0].shape[1]))

    def logits(self, number: int, rows: slice) -> torch.Tensor:
        """(T, E) of a router."""
        return torch.from_numpy(np.array(self._logits[number, rows]))

    def inputs(self, number: int, rows: slice) -> torch.Tensor:
        """(T, D) of a router."""
        return torch.from_numpy(np.array(self._inputs[number, rows]))

    @classmethod
    def record(
        cls,
        info: CheckpointInfo,
        tokens_NL: torch.Tensor,
        folder: Path,
        dtype: torch.dtype,
        progress: Progress,
        check_cancelled: CheckCancelled,
    ) -> _Routers:
        """One pass of the whole model."""
        model: Any = AutoModelForCausalLM.from_pretrained(info.path, dtype=dtype, local_files_only=True)
        widen(model)
        model.eval()
        gates = [
            (number, layer.mlp.gate)
            for number, layer in enumerate(model.model.layers)
            if hasattr(getattr(layer, "mlp", None), "experts")
        ]
        found = cls(
            tuple(number for number, _ in gates),
            [gate.weight.detach().to(torch.float32) for _, gate in gates],
            int(gates[0][1].top_k),
            folder,
            tokens_NL.numel(),
        )
        windows, length = tokens_NL.shape
        step = max(1, BATCH_TOKENS // length)
        at = [0]

        def keep(index: int, given_TD: torch.Tensor, logits_TE: torch.Tensor) -> None:
            rows = slice(at[0], at[0] + len(logits_TE))
            found._inputs[index, rows] = given_TD.reshape(-1, given_TD.shape[-1]).to(torch.float32).numpy()
            found._logits[index, rows] = logits_TE.to(torch.float32).numpy()

        for index, (_, gate) in enumerate(gates):
            gate.register_forward_hook(lambda _, args, out, index=index: keep(index, args[0], out[0]))
        for layer in model.model.layers:  # so that a cancelled job ends within a layer
            layer.register_forward_pre_hook(lambda *_: check_cancelled())
        with torch.no_grad():
            for start in range(0, windows, step):
                progress(f"routers of the {folder.name}", start, windows)
                model.model(input_ids=tokens_NL[start : start + step], use_cache=False)
                at[0] += tokens_NL[start : start + step].numel()
        progress(f"routers of the {folder.name}", windows, windows)
        return found


def _check(info: CheckpointInfo) -> None:
    layout = LAYOUTS.get(info.architecture)
    if layout is None or not layout.mixture or info.quantization is not None:
        why = "is packed" if info.quantization is not None else f"is a {info.architecture} and has no experts"
        raise HemostatError(
            ErrorCode.RECIPE_NOT_APPLICABLE,
            f"routing is measured on plain checkpoints of mixtures of experts; {info.path.name} {why}",
            hint="mixtures: " + ", ".join(sorted(name for name, known in LAYOUTS.items() if known.mixture)),
        )
