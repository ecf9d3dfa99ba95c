"""Keeps vLLM from changing the process it is a guest in, and takes back the memory it has had.

Made for a process of its own, vLLM seeds every random generator when it starts, and replaces functions of torch. It may
leave another default dtype behind when it fails. It moves every object of the process in and out of the garbage
collector's sight, and destroys the process groups of all engines when one ends.
"""

import contextlib
import ctypes
import gc
import os
import random
import sys
import warnings
from collections.abc import Iterator
from functools import cache
from typing import Any

from workers.engine import vllm_names as vllm


@contextlib.contextmanager
def quiet_vllm() -> Iterator[None]:
    """vLLM and what it imports use names that torch and others have deprecated: not ours to repair, nor to fail on."""
    with warnings.catch_warnings():
        for category in (FutureWarning, DeprecationWarning, PendingDeprecationWarning, UserWarning):
            warnings.simplefilter("ignore", category)
        yield


@contextlib.contextmanager
def globals_kept() -> Iterator[None]:
    """Random states, the default dtype, torch's threads and their setter, `LD_PRELOAD` and the exception hook are as
    before."""
    import numpy as np
    import torch

    python, numpy, host = random.getstate(), np.random.get_state(), torch.get_rng_state()
    dtype, threads, hook = torch.get_default_dtype(), torch.set_num_threads, sys.excepthook
    preload, count = os.environ.get("LD_PRELOAD"), torch.get_num_threads()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(host)
        torch.set_default_dtype(dtype)
        torch.set_num_threads = threads
        if torch.get_num_threads() != count:
            torch.set_num_threads(count)
        sys.excepthook = hook
        if preload is None:
            os.environ.pop("LD_PRELOAD", None)
        else:
            os.environ["LD_PRELOAD"] = preload


@contextlib.contextmanager
def alone_in_the_process() -> Iterator[None]:
    """An engine that starts or ends in here touches neither the others' process groups nor the collector's generations.

    vLLM hides every object from the collector in several places of a start, and shows all of them again at an end. The
    weights are in reference cycles: while they are hidden, they are never freed. And to collect over the half million
    objects that its imports leave took a third of a second at each end.
    """
    core = vllm.engine_core
    cleanup, freeze, unfreeze = core.cleanup_dist_env_and_memory, gc.freeze, gc.unfreeze
    core.cleanup_dist_env_and_memory = gc.freeze = gc.unfreeze = _nothing
    try:
        yield
    finally:
        core.cleanup_dist_env_and_memory, gc.freeze, gc.unfreeze = cleanup, freeze, unfreeze


def hide_imports() -> None:
    """Takes what lives now, all that vLLM has imported, out of the collector's sight for good."""
    gc.collect()
    gc.freeze()


def release_memory() -> None:
    """Gives what is free back to the system, so that it counts as available."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    for function in _release_functions():
        function()


@cache
def _release_functions() -> tuple[Any, ...]:
    """Of the C library's allocator and of tcmalloc, as far as they are there."""
    library = ctypes.CDLL(None)
    found: list[Any] = []
    with contextlib.suppress(AttributeError):
        release = library.MallocExtension_ReleaseFreeMemory
        release.restype = None
        found.append(release)
    with contextlib.suppress(AttributeError):
        trim = library.malloc_trim
        trim.argtypes, trim.restype = (ctypes.c_size_t,), ctypes.c_int
        found.append(lambda: trim(0))
    return tuple(found)


def _nothing() -> None:
    """Means what is not to happen."""
