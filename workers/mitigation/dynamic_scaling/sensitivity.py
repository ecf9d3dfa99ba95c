"""What changing weights of a layer costs, in nats per token, measured: the model is run to its end.

Only the layers from the changed one on are run: what enters it is what entered it in the unchanged model, which the
tape has. Many changes of one layer go through those behind it together, so that each is read once for all of them.


A window is compared at once: memory holds a few times 4·L·V bytes.

Names: N windows, L tokens of a window, V vocabulary.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from workers.mitigation.gradients import Tape
from workers.mitigation.objectives import logits
from workers.surgery.blockwise.walk import Activations
from workers.surgery.callbacks import CheckCancelled


class Measured:
    """What changes cost. `tape` of the model on a few windows; its distributions there are kept beside the tape, 4·V
    bytes per token."""

    def __init__(self, tape: Tape, check_cancelled: CheckCancelled) -> None:
        self._tape, self._check = tape, check_cancelled
        windows, length, _ = tape.states[-1].shape
        shape = (windows, length, tape.skeleton.info.vocabulary)
        self._logp = Activations(tape.scratch / f"{tape.name}-logp.bin", shape, torch.float32, tape.skeleton.device)
        for window in range(windows):
            check_cancelled()
            self._logp.write(window, self._distribution(tape.states[-1].read(window, window + 1)))

    @torch.no_grad()
    def layer(self, index: int, changes: Iterable[Mapping[str, torch.Tensor]]) -> list[float]:
        """KL(model ‖ model with these weights in the place of the layer's own) of each change, nats per token.

        `changes`: tensor name → weight (O, I); they are taken one at a time.
        """
        tape = self._tape
        skeleton, walk = tape.skeleton, tape.walk
        layers = len(skeleton.layers)
        block = skeleton.block(index)
        # a change → first window of a batch → hidden states
        states: list[dict[int, torch.Tensor]] = []
        for change in changes:
            with _changed(block, index, change):
                states.append({})
                for start, end in walk.batches():
                    self._check()
                    states[-1][start] = walk.call(index, tape.states[index].read(start, end))
        skeleton.release(index)
        for at in range(index + 1, layers):
            skeleton.block(at)
            for found in states:
                for start, hidden_NLD in found.items():
                    self._check()
                    found[start] = walk.call(at, hidden_NLD)
            skeleton.release(at)
        return [self._nats(found) for found in states]

    def _nats(self, states: Mapping[int, torch.Tensor]) -> float:
        total = 0.0
        for start, hidden_NLD in states.items():
            for window, hidden_LD in enumerate(hidden_NLD, start):
                self._check()
                theirs_1LV = self._logp.read(window, window + 1)
                gap_1LV = theirs_1LV - self._distribution(hidden_LD.unsqueeze(0))
                total += float(theirs_1LV.exp_().mul_(gap_1LV).sum())
        return total / self._tape.positions

    @torch.no_grad()
    def _distribution(self, hidden_1LD: torch.Tensor) -> torch.Tensor:
        return logits(self._tape.skeleton, hidden_1LD).log_softmax(-1)


@contextmanager
def _changed(block: nn.Module, index: int, change: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """For the length of a `with`, a block has these weights."""
    prefix = f"model.layers.{index}."
    parameters = {name: block.get_parameter(name.removeprefix(prefix)) for name in change}
    before = {name: parameter.data for name, parameter in parameters.items()}
    try:
        for name, weight_OI in change.items():
            parameters[name].data = weight_OI.to(before[name].dtype)
        yield
    finally:
        for name, parameter in parameters.items():
            parameter.data = before[name]
