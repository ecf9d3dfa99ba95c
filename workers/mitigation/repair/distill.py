"""Distillation of the adapter from the reference: forward KL on its stored final hidden states.

The modified model stays as it is, in bf16; float32 factors beside its linear layers are trained by Adam (Kingma and Ba,
1412.6980) on mean KL(reference ‖ repaired) over windows of the calibration text, as in Hinton et al. (1503.02531) at
temperature 1. The rate has a linear warm-up and a cosine decay to 0. The gradient enters below the head, so that no
vocabulary is on the tape. A part of the windows is not trained on: by them it is decided what is kept.

Memory: the model, its activations for `MICRO_TOKENS` tokens, four times the adapter in float32.

Names: N windows, L tokens of a window, T positions, D hidden size.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from math import cos, pi
from typing import Any

import torch

from app.recipes.repair import MICRO_TOKENS
from workers.mitigation.divergence import Divergence
from workers.mitigation.reconstruction import at
from workers.mitigation.repair.adapter import Adapted
from workers.mitigation.repair.closed_form import Factors
from workers.mitigation.repair.optimizer import Rate, adam_of
from workers.mitigation.split import Split
from workers.surgery.blockwise.skeleton import Skeleton
from workers.surgery.blockwise.walk import Activations
from workers.surgery.callbacks import CheckCancelled, Progress, never_cancelled, no_progress

STEP_TOKENS = 1024
RATE = 5e-4
# Nats a position from which on the rate is full. Adam's steps are as long where little is left to learn as where much
# is, and there they are noise: at 0.04 nats 200 steps at the full rate end above their beginning.
_FULL_RATE_NATS = 0.3
# Nats a position below which steps are in proportion to each factor, and their share of it. From 0.0372 nats on (RTN at
# 4 bits, rank 64) 24 such steps came to 0.0356, at three times the share to 0.0411, 24 of 2e-4 for all to 0.0373.
FINE_NATS = 0.05
FINE_RATE = 3e-3
FULL = Rate(RATE)
_WARM_UP = 0.05
_CLIP = 1.0


def rate_at(nats: float) -> Rate:
    """Adam's rate for an adapter that begins `nats` a position from the reference: ours, measured on rank 64. It is 0
    if nothing is left, which rounding may show as a little less than 0."""
    if 0 < nats < FINE_NATS:
        return Rate(FINE_RATE, relative=True)
    return Rate(RATE * min(1.0, max(0.0, nats) / _FULL_RATE_NATS))


class Distiller:
    """A modified model with an adapter at work.

    `skeleton` is that model's and is given all its weights; `factors` by tensor name; `states` what leaves the
    reference's final norm on `tokens_NL`.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        factors: Mapping[str, Factors],
        tokens_NL: torch.Tensor,
        states: Activations,
        divergence: Divergence,
        *,
        progress: Progress = no_progress,
        check_cancelled: CheckCancelled = never_cancelled,
    ) -> None:
        self._skeleton, self._tokens_NL, self._states = skeleton, tokens_NL, states
        self._divergence = divergence
        self._progress, self.check_cancelled = progress, check_cancelled
        skeleton.whole(check_cancelled)
        self._adapted: dict[str, Adapted] = {}
        for name, one in factors.items():
            path = name.removesuffix(".weight")
            parent, _, leaf = path.rpartition(".")
            module: Any = skeleton.model.get_submodule(parent)
            self._adapted[name] = Adapted(getattr(module, leaf), one)
            setattr(module, leaf, self._adapted[name])
        for layer in skeleton.layers:
            layer.register_forward_hook(self._check_within)
        self._split = Split.of(len(tokens_NL))

    def _check_within(self, _: torch.nn.Module, __: Any, found: Any) -> None:
        """After every layer, forward and, by what is raised there, backward."""
        self.check_cancelled()
        leaving_NLD: torch.Tensor = found[0] if isinstance(found, tuple) else found
        if leaving_NLD.requires_grad:
            leaving_NLD.register_hook(lambda _: self.check_cancelled())  # type: ignore[no-untyped-call]

    def put(self, factors: Mapping[str, Factors]) -> None:
        """Other factors of the same ranks."""
        with torch.no_grad():
            for name, one in factors.items():
                self._adapted[name].up_OR.copy_(one.up_OR)
                self._adapted[name].down_RI.copy_(one.down_RI)

    def factors(self) -> dict[str, Factors]:
        """As they are now; `gains_R` has no meaning any more and is 0."""
        return {
            name: Factors(one.up_OR.detach().clone(), one.down_RI.detach().clone(), torch.zeros(one.down_RI.shape[0]))
            for name, one in self._adapted.items()
        }

    @torch.no_grad()
    def measure(self) -> float:
        """Mean KL on the windows that decide, in nats per position."""
        total, count = 0.0, 0
        for window in self._split.held_out:
            self.check_cancelled()
            hidden_TD = self._hidden([window])
            total += self._divergence.of(self._target([window]), hidden_TD)[0]
            count += len(hidden_TD)
        return total / count

    def train(
        self,
        steps: int,
        *,
        seed: int,
        seconds: float | None = None,
        rate: Rate = FULL,
    ) -> int:
        """So many steps, or as many as `seconds` allow; returns how many were done."""
        parameters = [parameter for one in self._adapted.values() for parameter in one.parameters(recurse=False)]
        if not parameters or not steps or not rate.size:
            return 0
        adam = adam_of(self._adapted.values(), rate, (0.9, 0.98))
        began = time.monotonic()
        batches = _batches(self._split.train, max(1, STEP_TOKENS // self._tokens_NL.shape[1]), seed)
        for step, windows in enumerate(islice(batches, steps)):
            spent = (time.monotonic() - began) / seconds if seconds else 0.0
            if spent >= 1:
                return step
            self._progress("distill", step, steps)
            at(adam, _share(max(step / steps, spent), step / max(1.0, _WARM_UP * steps)))
            adam.zero_grad(set_to_none=True)
            self._gradients(windows)
            torch.nn.utils.clip_grad_norm_(parameters, _CLIP)
            adam.step()
        self._progress("distill", steps, steps)
        return steps

    def _gradients(self, windows: Sequence[int]) -> None:
        many = max(1, MICRO_TOKENS // self._tokens_NL.shape[1])
        positions = len(windows) * self._tokens_NL.shape[1]
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
        found = self._skeleton.model.model(
            input_ids=self._tokens_NL[list(windows)].to(self._skeleton.device), use_cache=False
        )
        hidden_TD: torch.Tensor = found.last_hidden_state.flatten(0, 1)
        return hidden_TD

    def _target(self, windows: Sequence[int]) -> torch.Tensor:
        return torch.cat([self._states.read(window, window + 1).flatten(0, 1) for window in windows])


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
