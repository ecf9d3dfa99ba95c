"""Recovery: the weights that stayed are trained on the divergence itself, KL(reference ‖ candidate) of all tokens.

All layers at once, Adam on float32 masters, masks applied at every step; embeddings, norms, biases and head stay as
they are. This is forward-KL distillation from the dense model (Hinton et al. 2015, arXiv 1503.02531) on a fixed mask;
the reference's final states are on disk, so that no teacher runs. Memory: the model in its dtype, and 12 bytes a
trained weight for master and moments.

A part of the windows is not trained on: by them it is decided whether the training is kept, since many passes over
little text learn it by heart.

Bounded by steps, by seconds, or both. Bounded by steps it gives the same weights again; bounded by seconds it does not,
since the rate falls with the time that has passed.
"""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from workers.mitigation.gradient_pruning.kept import KeptWeights
from workers.mitigation.objectives import FromReference
from workers.mitigation.split import Split
from workers.surgery.blockwise.skeleton import Skeleton
from workers.surgery.blockwise.walk import Activations
from workers.surgery.callbacks import CheckCancelled, Progress, never_cancelled, no_progress

# Adam's step relative to the root mean square of a matrix's kept weights.
RATE = 3e-4
# Positions of one step, at least one window.
STEP_TOKENS = 512


class Recovery:
    """Training of the weights `names` of `skeleton` (all blocks loaded) towards what `reference` says.

    `tokens_NL`: the windows, of which `Split` says what is trained on; `reference`: what leaves the last block of the
    reference on them, `teacher` its skeleton.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        names: frozenset[str],
        tokens_NL: torch.Tensor,
        reference: Activations,
        teacher: Skeleton,
        *,
        seed: int = 0,
        rate: float = RATE,
        recompute: bool = False,
    ) -> None:
        self._skeleton, self._tokens_NL, self._recompute = skeleton, tokens_NL, recompute
        linears: dict[str, nn.Linear] = {}
        for index, layer in enumerate(skeleton.layers):
            for path, one in layer.named_modules():
                name = f"model.layers.{index}.{path}.weight"
                if isinstance(one, nn.Linear) and name in names:
                    linears[name] = one
        self.kept = KeptWeights(linears, rate=rate)
        self._objective = FromReference(skeleton, reference, teacher)
        self._batch = max(1, STEP_TOKENS // tokens_NL.shape[1])
        self._split = Split.of(len(tokens_NL))
        self._seed = seed
        self.steps = 0

    def step(self, part: float, check_cancelled: CheckCancelled = never_cancelled) -> float:
        """One step at a part (0 to 1) of the way; the mean KL of its positions before it, in nats."""
        start = self._start(self.steps)
        tokens_NL = self._tokens_NL[start : min(start + self._batch, len(self._split.train))]
        hidden_NLD, calls = self._skeleton.calls(tokens_NL)
        with torch.enable_grad():
            for layer, kwargs in zip(self._skeleton.layers, calls, strict=True):
                check_cancelled()
                hidden_NLD = self._call(layer, hidden_NLD, kwargs)
                if hidden_NLD.requires_grad:
                    # What is raised there ends the way back.
                    hidden_NLD.register_hook(lambda _: check_cancelled())  # type: ignore[no-untyped-call]
        self._objective.total = 0.0
        gradient_NLD = self._objective.gradient(start, hidden_NLD.detach())
        hidden_NLD.backward(gradient_NLD / tokens_NL.numel())  # type: ignore[no-untyped-call]
        self.kept.step(part)
        self.steps += 1
        return self._objective.total / tokens_NL.numel()

    @torch.no_grad()
    def measure(self, check_cancelled: CheckCancelled = never_cancelled) -> float:
        """Mean KL on the windows that decide, in nats per position."""
        self._objective.total, positions = 0.0, 0
        for window in self._split.held_out:
            hidden_NLD, calls = self._skeleton.calls(self._tokens_NL[window : window + 1])
            for layer, kwargs in zip(self._skeleton.layers, calls, strict=True):
                check_cancelled()
                hidden_NLD = self._call(layer, hidden_NLD, kwargs)
            self._objective.gradient(window, hidden_NLD)
            positions += hidden_NLD.shape[1]
        return self._objective.total / positions

    def run(
        self,
        *,
        seconds: float | None,
        steps: int | None,
        progress: Progress = no_progress,
        check_cancelled: CheckCancelled = never_cancelled,
        clock: Callable[[], float] = time.monotonic,
    ) -> list[float]:
        """Steps until the first bound is reached; the KL of each."""
        began, found = clock(), list[float]()
        while True:
            passed = clock() - began
            parts = [0.0]
            if seconds is not None:
                parts.append(passed / seconds)
            if steps is not None:
                parts.append(self.steps / steps)
            if max(parts) >= 1:
                return found
            check_cancelled()
            progress("recovery", *((self.steps, steps) if steps is not None else (int(passed), int(seconds or 0))))
            found.append(self.step(max(parts), check_cancelled))

    def _start(self, step: int) -> int:
        """The first window of a step: every epoch each batch once, in an order that seed and epoch decide."""
        batches = -(-len(self._split.train) // self._batch)
        epoch, turn = divmod(step, batches)
        draws = torch.Generator().manual_seed((self._seed * 1_000_003 + epoch) % 2**63)
        return int(torch.randperm(batches, generator=draws, device="cpu")[turn]) * self._batch

    def _call(self, layer: nn.Module, hidden_NLD: torch.Tensor, kwargs: dict[str, Any]) -> torch.Tensor:
        found: Any = (
            checkpoint(layer, hidden_NLD, use_reentrant=False, **kwargs)
            if self._recompute
            else layer(hidden_NLD, **kwargs)
        )
        leaving_NLD: torch.Tensor = found[0] if isinstance(found, tuple) else found
        return leaving_NLD
