"""The process environment that vLLM needs, settled before torch and vLLM are imported.

vLLM and the OpenMP runtime read their variables once, at import or at the first parallel region; set later they do
nothing. So the parent of the process that computes takes `child_environment()`, and that process itself calls
`prepare()` first. This module imports neither torch nor vLLM.
"""

import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from app.secrets import without_secrets

# Variable -> value, each because the default would do harm.
ENGINE: dict[str, str] = {
    # The engine lives in the process that asks for it: weights are swapped, hidden states handed over without copies.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    # vLLM keeps one core for its scheduler process; there is none here, so every core computes.
    "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
    # Processes that hold a part of a model are started anew: a copy of one with threads and a GPU would hang.
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    # On a CPU they share its cores as the system likes; vLLM would want a NUMA node for each.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    # Runner V2 (a GPU's default) reorders rows and refuses the processors that runner V1 takes.
    "VLLM_USE_V2_MODEL_RUNNER": "0",
    # With AMX vLLM rounds the activations of 4-bit weights to 8 bits unasked: another model than was given.
    "VLLM_CPU_INT4_W4A8": "0",
    # A token that is in the home folder is for who named it.
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    # Nothing reports home.
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "DO_NOT_TRACK": "1",
    # Its process group, of one process, listens on the loopback interface alone.
    "VLLM_HOST_IP": "127.0.0.1",
    "GLOO_SOCKET_IFNAME": "lo" if sys.platform.startswith("linux") else "lo0",
    # The project asks for no plugin; one that happens to be installed must not change what is measured.
    "VLLM_PLUGINS": "",
    # Its lines are long, repeat for every start, and warn of what is meant (no thread binding, no tokenizer).
    "VLLM_LOGGING_LEVEL": "ERROR",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    # Logs and progress bars share no stream with results.
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    # Progress is given by the job's events; bars of libraries would fill the log.
    "TQDM_DISABLE": "1",
    # A metric that lm-evaluation-harness would load from a hub is refused.
    "HF_EVALUATE_OFFLINE": "1",
    # Tokenizers fork-warn otherwise, and vLLM's threads are counted already.
    "TOKENIZERS_PARALLELISM": "false",
}

# With Ray the parts of a model find one another on the addresses of their hosts.
_LOOPBACK: Final = frozenset({"VLLM_HOST_IP", "GLOO_SOCKET_IFNAME"})

# Its variables as a person has set them: it sets more of them itself as it starts.
GIVEN: Final[Mapping[str, str]] = {name: value for name, value in os.environ.items() if name.startswith("VLLM_")}

# vLLM's modules read it when they are imported: a text then scores the same in every batch, on GPUs of 8.0 or higher.
BATCH_INVARIANT: Final = "VLLM_BATCH_INVARIANT"

# Where distributions keep tcmalloc, in order of preference.
_TCMALLOC_NAMES = ("libtcmalloc_minimal.so.4", "libtcmalloc.so.4")
_LIBRARY_FOLDERS = (
    "/usr/lib/{machine}-linux-gnu",
    "/lib/{machine}-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/lib",
)


def find_tcmalloc() -> Path | None:
    """The tcmalloc library of this machine, or None. It makes scoring on a CPU some 8 % faster; nothing needs it."""
    if not sys.platform.startswith("linux"):
        return None
    for name in _TCMALLOC_NAMES:
        for folder in _LIBRARY_FOLDERS:
            candidate = Path(folder.format(machine=platform.machine())) / name
            if candidate.is_file():
                return candidate
    return None


def physical_cores() -> int:
    """Physical cores that this process may run on: two threads of one core gain nothing in a matrix product."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    allowed = os.sched_getaffinity(0)
    cores: set[str] = set()
    for cpu in allowed:
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            cores.add(siblings.read_text(encoding="ascii").strip())
        except OSError:
            return len(allowed)
    return max(1, len(cores))


def prepare(*, batch_invariant: bool = False) -> None:
    """Puts what vLLM needs into this process' environment. What a person has set stays, except what correctness needs.

    `batch_invariant` is the setting of this name. Called at the top of a process that will start engines, before torch
    is imported; starting an engine calls it again.
    """
    os.environ.update(_engine_variables(os.environ))
    if batch_invariant:
        os.environ[BATCH_INVARIANT] = "1"


def child_environment(base: Mapping[str, str] | None = None) -> dict[str, str]:
    """The whole environment of a child that runs models: that of `engine_environment` without secrets."""
    return without_secrets(engine_environment(base))


def engine_environment(base: Mapping[str, str] | None = None) -> dict[str, str]:
    """The whole environment for a process that will start engines: `base`, or this process' own, and what vLLM needs.

    Beyond `prepare()` it sets what only the start of a process can: the allocator (`LD_PRELOAD`), the number of OpenMP
    threads, and how they wait.
    """
    environment = dict(os.environ if base is None else base)
    environment.update(_engine_variables(environment))
    environment.setdefault("OMP_NUM_THREADS", str(physical_cores()))
    if "OMP_WAIT_POLICY" not in environment:
        # A thread that waits for another one burns its core for milliseconds by default. Beside one busy process that
        # made scoring three times and sampling eight times slower; alone, a short wait is as fast in scoring.
        environment.setdefault("GOMP_SPINCOUNT", "1000")
    preload = environment.get("LD_PRELOAD", "")
    tcmalloc = find_tcmalloc()
    if tcmalloc is not None and "tcmalloc" not in preload:
        environment["LD_PRELOAD"] = f"{tcmalloc}:{preload}" if preload else str(tcmalloc)
    return environment


def start_with_engine_environment() -> None:
    """Starts this process again, the same program with the same arguments, if it lacks what `engine_environment` sets.

    For a process whose parent cannot know what engines need. Called first of all, before torch is imported. The process
    id, the parent and the signal that follows the parent's end (`PR_SET_PDEATHSIG`) stay as they are.
    """
    wanted = engine_environment()
    if all(os.environ.get(name) == wanted.get(name) for name in _AT_START):
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], wanted)  # noqa: S606 - itself


# Variables that do nothing once the process runs.
_AT_START = ("LD_PRELOAD", "OMP_NUM_THREADS", "GOMP_SPINCOUNT")

# Results would be wrong, or the engine not be where it is looked for, with other values.
_FORCED = frozenset({"VLLM_ENABLE_V1_MULTIPROCESSING", "VLLM_USE_V2_MODEL_RUNNER", "VLLM_PLUGINS"})


def _engine_variables(present: Mapping[str, str]) -> dict[str, str]:
    others = _LOOPBACK if present.get("HEMOSTAT_ENGINE_EXECUTOR") == "ray" else frozenset()
    return {
        name: value for name, value in ENGINE.items() if name not in others and (name in _FORCED or name not in present)
    }
