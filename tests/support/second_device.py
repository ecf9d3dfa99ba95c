"""A second device that is the CPU: its tensors compute the same numbers, and no operator takes them with the host's.

What torch refuses on a GPU is refused here: an operator over tensors of both devices, a generator of the host for
numbers of the device, numpy of a tensor there. It is stricter than a GPU, where an index or a mask may be the host's.
A host's number without dimensions is let through, as there. `WAITED` lists the operators for which the host of a GPU
waits until it has done all its work. Inference mode is `no_grad` there: a subclass of Tensor does not go with it.
`HELD` counts the bytes of the device's tensors.
"""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from traceback import format_stack
from typing import Any, Final

import pytest
import torch
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend


class _Module(_DummyBackendModule):
    """Other tests of this process have no accelerator: torch and llm-compressor would move work there."""

    def is_available(self) -> bool:
        return False


_NAME: Final = "second"
_setup_privateuseone_for_python_backend(_NAME, backend_module=_Module())
DEVICE: Final = torch.device(_NAME, 0)
_HOST: Final = torch.device("cpu")
# What was refused on the way backward.
_BACKWARD: Final[list[str]] = []
_COPIES: Final = ("aten::_to_copy", "aten::copy_")
# Their results, or how many there are, are read by the host.
_READS: Final = frozenset(
    f"aten::{name}" for name in ("_local_scalar_dense", "equal", "is_nonzero", "masked_select", "nonzero", "_unique2")
)
# Of the operators since the last context began.
WAITED: Final[list[str]] = []


class Held:
    """Bytes of the device's tensors: `most` since the last context began. Memory that tensors share counts once."""

    def __init__(self) -> None:
        self.now, self.most = 0, 0
        self._tensors: dict[int, int] = {}

    def add(self, one: "OnSecond", held: torch.Tensor) -> "weakref.finalize[Any, Any]":
        """A tensor around `held`, until it is gone."""
        storage = held.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        self._tensors[key] = self._tensors.get(key, 0) + 1
        if self._tensors[key] == 1:
            self.now += size
            self.most = max(self.most, self.now)
        return weakref.finalize(one, self._remove, key, size)

    def _remove(self, key: int, size: int) -> None:
        self._tensors[key] -= 1
        if not self._tensors[key]:
            del self._tensors[key]
            self.now -= size


HELD: Final = Held()


class MixedError(RuntimeError):
    """An operator was given operands of both devices."""


class OnSecond(torch.Tensor):
    """A tensor of the device; `held` has its numbers, on the host."""

    held: torch.Tensor
    counted: "weakref.finalize[Any, Any]"

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> "OnSecond":
        """Around a tensor of the host, whose memory it shares."""
        made: OnSecond = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=DEVICE,
        )
        made.held = held
        made.counted = HELD.add(made, held)
        return made

    def __deepcopy__(self, _: Any) -> torch.Tensor:
        copy = self.detach().clone().requires_grad_(self.requires_grad)
        copy.__dict__ |= {name: value for name, value in self.__dict__.items() if name not in ("held", "counted")}
        return copy

    @property  # type: ignore[override]
    def data(self) -> torch.Tensor:
        """As of any tensor; what is assigned is held."""
        return self.detach()

    @data.setter
    def data(self, value: torch.Tensor) -> None:
        torch.Tensor.data.__set__(self, value)  # type: ignore[attr-defined]
        self.counted()
        self.held = value.held  # type: ignore[attr-defined]
        self.counted = HELD.add(self, self.held)

    def tolist(self) -> Any:
        """Its numbers: a subclass has no such method of its own."""
        return self.cpu().tolist()

    def data_ptr(self) -> int:
        """Where its numbers are."""
        return self.held.data_ptr()

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return _run(func, args, kwargs or {})


class _Event:
    """Of the device, which has done its work when it is waited for."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.recorded, self.waited = device, False, False

    def record(self) -> None:
        self.recorded = True

    def query(self) -> bool:
        return self.waited

    def synchronize(self) -> None:
        assert self.recorded
        self.waited = True


class _Operators(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


@contextmanager
def second_device() -> Iterator[torch.device]:
    """The device; inside of this context alone tensors can be made on it."""
    WAITED.clear()
    HELD.most = HELD.now
    # torch.tensor makes its numbers on the host, and asks this device for a copy.
    torch._C._set_only_lift_cpu_tensors(True)
    try:
        with (
            pytest.MonkeyPatch.context() as patched,
            torch.autograd.set_multithreading_enabled(False),
            _Operators(),
        ):
            patched.setattr(torch, "inference_mode", torch.no_grad)
            patched.setattr(torch, "Event", _Event)
            yield DEVICE
        if _BACKWARD:
            raise MixedError(_BACKWARD[0])
    finally:
        _BACKWARD.clear()
        torch._C._set_only_lift_cpu_tensors(False)


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """The operator on the host's numbers; what comes of it is where its operands are, or where it was asked for."""
    flat, form = tree_flatten((args, kwargs))
    inside = [one for one in flat if isinstance(one, OnSecond)]
    asked = kwargs.get("device")
    there = bool(inside) if asked is None else torch.device(asked).type == _NAME
    if func._schema.name not in _COPIES:
        _check(func, flat, there=there)
    elif func._schema.name == "aten::copy_":
        there = isinstance(args[0], OnSecond)
    if _waits(func._schema.name, args, kwargs, inside=bool(inside), there=there):
        WAITED.append(func._schema.name)
    plain = [one.held if isinstance(one, OnSecond) else one for one in flat]
    plain_args, plain_kwargs = tree_unflatten(plain, form)
    if there and asked is not None:
        plain_kwargs["device"] = _HOST
    found = func(*plain_args, **plain_kwargs)
    if there and torch.Tag.inplace_view in func.tags:
        with no_dispatch():
            func(*args, **kwargs)  # the shape that the tensor itself shows
    known = {id(one.held): one for one in inside}

    def placed(one: Any) -> Any:
        if not isinstance(one, torch.Tensor) or not there:
            return one
        return known[id(one)] if id(one) in known else OnSecond(one)

    return tree_map(placed, found)


def _waits(name: str, args: Any, kwargs: dict[str, Any], *, inside: bool, there: bool) -> bool:
    """A copy between the devices waits unless it is asked not to; so does an index of which True is counted."""
    if name in _COPIES:
        source, blocks = args[0], not kwargs.get("non_blocking", False)
        if name == "aten::copy_":
            source, blocks = args[1], not (args[2] if len(args) > 2 else not blocks)
        return blocks and isinstance(source, OnSecond) != there
    if name == "aten::index":
        return inside and any(one is not None and one.dtype == torch.bool for one in args[1])
    return inside and name in _READS


def _check(func: Any, flat: list[Any], *, there: bool) -> None:
    tensors = [one for one in flat if isinstance(one, torch.Tensor)]
    inside = [one for one in tensors if isinstance(one, OnSecond)]
    outside = [one for one in tensors if not isinstance(one, OnSecond) and one.dim()]
    if inside and outside:
        shapes = [f"{tuple(one.shape)} {one.device.type}" for one in tensors]
        _refuse(f"{func}: operands of both devices: {', '.join(shapes)}")
    if there and any(isinstance(one, torch.Generator) for one in flat):
        _refuse(f"{func}: a generator of the host")


def _refuse(why: str) -> None:
    """Raises, or keeps for the end what is refused on the way backward: what is raised there ends the process."""
    if torch._C._current_graph_task_id() < 0:
        raise MixedError(why)
    _BACKWARD.append("".join([why, "\n", *format_stack(limit=8)]))
