"""Training of a model's additions by the reference: forward KL on its stored final hidden states.

The modified model stays as it is, in its dtype; float32 tensors beside its weights are trained by Adam (Kingma and Ba,
1412.6980) on mean KL(reference ‖ trained) over windows of a text, as in Hinton et al. (1503.02531) at temperature 1.
The rate has a linear warm-up and a cosine decay to 0. The gradient enters below the head, so that no vocabulary is on
the tape. A part of the windows is not trained on: by them it is decided what is kept.

Memory: the model, its activations for `MICRO_TOKENS` tokens, four times what is trained in float32.

Names: N windows, L tokens of a window, T positions, D hidden size.
"""

import time
from collections.abc import Iterator, Sequence
from itertools import islice
from math import cos, pi
from typing import Any

import torch

from app.recipes.repair import DISTILL_TOKENS, MICRO_TOKENS
from workers.mitigation.divergence import Divergence
from workers.mitigation.optimizer import Rate, adam_of
from workers.mitigation.reconstruction import at
from workers.mitigation.split import Split
from workers.surgery.blockwise.skeleton import Skeleton
from workers.surgery.blockwise.walk import Activations
from workers.surgery.callbacks import CheckCancelled, Progress, never_cancelled, no_progress

_WARM_UP = 0.05
_CLIP = 1.0


class Training:
    """A modified model whose additions, put into `skeleton` by the caller, are trained.

    `skeleton` is given all its weights; `states` is what leaves the reference's final norm on `tokens_NL`; positions
    that `counted_NL` leaves out (default: none) are only walked through.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        tokens_NL: torch.Tensor,
        states: Activations,
        divergence: Divergence,
        *,
        split: Split | None = None,
        counted_NL: torch.Tensor | None = None,
        phase: str = "distill",
        progress: Progress = no_progress,
        check_cancelled: CheckCancelled = never_cancelled,
    ) -> None:
        self._skeleton, self._tokens_NL, self._states = skeleton, tokens_NL, states
        self._divergence, self._phase = divergence, phase
        self._counted_NL = torch.ones_like(tokens_NL, dtype=torch.bool) if counted_NL is None else counted_NL
        self._progress, self.check_cancelled = progress, check_cancelled
        self._split = split or Split.of(len(tokens_NL))
        skeleton.whole(check_cancelled)
        for layer in skeleton.layers:
            layer.register_forward_hook(self._check_within)

    def _check_within(self, _: torch.nn.Module, __: Any, found: Any) -> None:
        """After every layer, forward and, by what is raised there, backward."""
        self.check_cancelled()
        leaving_NLD: torch.Tensor = found[0] if isinstance(found, tuple) else found
        if leaving_NLD.requires_grad:
            leaving_NLD.register_hook(lambda _: self.check_cancelled())  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def measure(self) -> float:
        """Mean KL on the windows that decide, in nats per counted position."""
        total, count = 0.0, 0
        for window in self._split.held_out:
            self.check_cancelled()
            hidden_TD = self._hidden([window])
            total += self._divergence.of(self._target([window]), hidden_TD)[0]
            count += len(hidden_TD)
        return total / count

    def descend(
        self,
        trained: Sequence[torch.nn.Parameter],
        steps: int,
        *,
        seed: int,
        seconds: float | None = None,
        rate: Rate,
    ) -> int:
        """So many steps, or as many as `seconds` allow; returns how many were done."""
        if not trained or not steps or not rate.size:
            return 0
        adam = adam_of(trained, rate, (0.9, 0.98))
        began = time.monotonic()
        batches = _batches(self._split.train, max(1, DISTILL_TOKENS // self._tokens_NL.shape[1]), seed)
        for step, windows in enumerate(islice(batches, steps)):
            spent = (time.monotonic() - began) / seconds if seconds else 0.0
            if spent >= 1:
                return step
            self._progress(self._phase, step, steps)
            at(adam, _share(max(step / steps, spent), step / max(1.0, _WARM_UP * steps)))
            adam.zero_grad(set_to_none=True)
            self._gradients(windows)
            torch.nn.utils.clip_grad_norm_(trained, _CLIP)
            adam.step()
        self._progress(self._phase, steps, steps)
        return steps

    def _gradients(self, windows: Sequence[int]) -> None:
        many = max(1, MICRO_TOKENS // self._tokens_NL.shape[1])
        positions = int(self._counted_NL[list(windows)].sum())
        for start in range(0, len(windows), many):
            part = windows[start : start + many]
            self.check_cancelled()
            with torch.enable_grad():
                hidden_TD = self._hidden(part)
            self.check_cancelled()
            _, gradient_TD = self._divergence.of(self._target(part), hidden_TD.detach())
            self.check_cancelled()
            hidden_TD.backward(gradient_TD / positions)  # type: ignore[no-untyped-call]

    def _hidden(self, windows: Sequence[int]) -> torch.Tensor:
        device = self._skeleton.device
        found = self._skeleton.model.model(input_ids=self._tokens_NL[list(windows)].to(device), use_cache=False)
        hidden_TD: torch.Tensor = found.last_hidden_state[self._counted_NL[list(windows)].to(device)]
        return hidden_TD

    def _target(self, windows: Sequence[int]) -> torch.Tensor:
        states_NLD = torch.cat([self._states.read(window, window + 1) for window in windows])
        return states_NLD[self._counted_NL[list(windows)].to(states_NLD.device)]


def _share(done: float, warm: float) -> float:
    """Of the full rate: a linear rise, then a cosine to 0."""
    return min(1.0, warm + 0.1) * (1 + cos(pi * min(1.0, done))) / 2


def _batches(windows: Sequence[int], size: int, seed: int) -> Iterator[list[int]]:
    """Windows in a seeded order without end, each as often as any other."""
    draws = torch.Generator().manual_seed(seed % 2**63)
    waiting: list[int] = []
    while True:
        while len(waiting) < size:
            waiting += [windows[int(at)] for at in torch.randperm(len(windows), generator=draws, device="cpu")]
        yield waiting[:size]
        waiting = waiting[size:]
