"""`make check-triton`: does Triton compile what Inductor makes of the divergence's graphs? It needs no GPU.

`python -m tests.gpu.compile_only 9.0` compiles for cards of compute capability 9.0. `Divergence` itself computes one
chunk of fake tensors on a fake card, so forms, shapes and options are those of jobs. Inductor writes its kernels as
for a real card. Each of them, in each configuration that Inductor would try, goes through Triton's compiler and ptxas.
Nothing runs on a device: what the kernels compute and how fast is not tested.
"""

import copy
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the same on a machine with a GPU

import torch
import torch.utils._triton
from torch._dynamo.device_interface import CudaInterface
from torch._functorch import config as functorch
from torch._inductor import compile_fx, config
from torch._inductor.fx_passes.joint_graph import UniformValueConstantFolder
from torch._inductor.runtime import triton_helpers
from torch._inductor.runtime.triton_heuristics import CachingAutotuner
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from workers.distributions.divergence import Divergence, Precision
from workers.distributions.head import Head

# By compute capability: multiprocessors, and the most shared memory of a block, as NVIDIA states them.
CARDS = {"8.0": (108, 163 * 1024), "8.6": (84, 99 * 1024), "8.9": (142, 99 * 1024), "9.0": (132, 227 * 1024)}
GRAPHS = 4  # of a form: block_maxima, refine, normalise, total


class OnHost(TorchDispatchMode):
    """Makes constants on the host that are meant for the card."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **{name: "cpu" if name == "device" else value for name, value in (kwargs or {}).items()})


class Check:
    """What was compiled for one kind of card, and what was not."""

    def __init__(self, capability: str) -> None:
        self.major, self.minor = map(int, capability.split("."))
        self.processors, self.shared = CARDS[capability]
        self.graphs = 0
        self.binaries: list[tuple[str, str]] = []  # name of the kernel and hash, once a configuration
        self.failures: list[str] = []

    def precompile(self, kernel: CachingAutotuner) -> None:
        """In place of Inductor's own, which also loads the binaries onto the card."""
        name = kernel.inductor_meta["kernel_name"]
        for one in kernel.configs:
            try:
                binary = kernel._precompile_config(one).kernel
                if binary.metadata.target.arch != 10 * self.major + self.minor or not binary.asm["cubin"]:
                    raise RuntimeError(f"compiled for {binary.metadata.target}")
                if binary.metadata.shared > self.shared:
                    raise RuntimeError(f"{binary.metadata.shared} bytes of shared memory, a block has {self.shared}")
                self.binaries.append((name, binary.hash))
            except Exception as error:
                self.failures.append(f"{name} ({one}): {type(error).__name__}: {error}")

    @contextmanager
    def pretended(self) -> Iterator[None]:
        """A card that Inductor can ask for its properties. Nothing reaches a device."""
        card = SimpleNamespace(
            name="pretended",
            major=self.major,
            minor=self.minor,
            multi_processor_count=self.processors,
            regs_per_multiprocessor=65536,
            max_threads_per_multi_processor=2048 if self.minor == 0 else 1536,
            max_threads_per_block=1024,
            warp_size=32,
        )
        lower, fold = compile_fx._InProcessFxCompile.codegen_and_compile, UniformValueConstantFolder.run

        def lowered(scheme: Any, graph: torch.fx.GraphModule, *args: Any, **kwargs: Any) -> Any:
            traced = copy.deepcopy(graph)
            code = lower(scheme, graph, *args, **kwargs)
            code.post_compile = lambda *_, **__: None
            code.current_callable = lambda inputs: traced(*inputs)  # fake tensors take the graph, not the binaries
            self.graphs += 1
            return code

        def folded(folder: Any, *args: Any, **kwargs: Any) -> Any:
            with OnHost():
                return fold(folder, *args, **kwargs)

        fakes = [
            (torch.cuda, "get_device_capability", lambda *_: (self.major, self.minor)),
            (CudaInterface, "get_device_properties", lambda *_: card),
            (CudaInterface.Worker, "get_device_properties", lambda *_: card),
            (CudaInterface, "is_available", lambda: True),
            (CudaInterface, "is_bf16_supported", lambda *_, **__: True),
            (CudaInterface, "is_triton_capable", lambda *_: True),
            (triton_helpers, "set_driver_to_gpu", lambda: None),
            (torch.utils._triton, "triton_hash_with_backend", lambda: "pretended"),
            (CachingAutotuner, "precompile", lambda kernel, **_: self.precompile(kernel)),
            (compile_fx._InProcessFxCompile, "codegen_and_compile", lowered),
            (UniformValueConstantFolder, "run", folded),
            # These read numbers, and fake tensors have none.
            (Head, "same_matrix", lambda head, other: head.weight_VD is other.weight_VD),
            (Head, "largest_weight", 1.0),
            (Head, "largest_bias", 1.0),
        ]
        with ExitStack() as stack:
            for owner, name, fake in fakes:
                stack.enter_context(mock.patch.object(owner, name, fake))
            stack.enter_context(functorch.patch(enable_autograd_cache=False))
            stack.enter_context(config.patch(fx_graph_cache=False, compile_threads=1, use_static_triton_launcher=False))
            stack.enter_context(FakeTensorMode())
            yield


def head(vocabulary: int, width: int, *, bias: bool = False, scale: float = 1.0, cap: float | None = None) -> Head:
    """A head without numbers, on the pretended card."""
    weight_VD = torch.empty(vocabulary, width, dtype=torch.bfloat16, device="cuda")
    return Head(weight_VD, torch.empty(vocabulary, device="cuda") if bias else None, scale, cap, "fake")


def cases() -> Iterator[tuple[str, Head, Head, Precision]]:
    """Forms of every kind, most in shapes of known models."""
    llama, small = head(128_256, 4096), head(1000, 64)
    gemma, cohere = head(256_000, 3584, cap=30.0), head(256_000, 4096, scale=0.0625)
    yield "one head", llama, llama, "fast"
    yield "one head, float32", llama, llama, "float32"
    yield "heads differ", llama, head(128_256, 4096), "fast"
    yield "heads differ, float32", llama, head(128_256, 4096), "float32"
    yield "widths differ", llama, head(128_256, 2048), "fast"
    yield "soft cap, large vocabulary", gemma, gemma, "fast"
    yield "scale, large vocabulary", cohere, cohere, "fast"
    yield "bias, caps and scales differ", head(51_200, 2560, bias=True, cap=9.0), head(51_200, 2560, scale=0.5), "fast"
    yield "small vocabulary", small, small, "fast"


def main(capability: str) -> int:
    """Writes a line for each form. 1 if a kernel does not compile."""
    check, say = Check(capability), sys.stdout.write
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.dict(os.environ, TORCHINDUCTOR_CACHE_DIR=folder, TRITON_CACHE_DIR=f"{folder}/triton"),
        check.pretended(),
    ):
        for form, reference, candidate, precision in cases():
            began, graphs, binaries = time.monotonic(), check.graphs, len(check.binaries)
            states = [torch.empty(8, one.hidden_size, device="cuda") for one in (reference, candidate)]
            divergence = Divergence(reference, candidate, precision=precision, device="cuda:0")
            divergence._parts(*states, torch.empty(8, dtype=torch.int64, device="cuda"), lambda: None)
            made = check.binaries[binaries:]
            kernels, took = len({name for name, _ in made}), time.monotonic() - began
            say(f"{capability}, {form}: {kernels} kernels, {len(made)} binaries, {took:.0f} s\n")
            if check.graphs != graphs + GRAPHS or not made:
                check.failures.append(f"{form}: {check.graphs - graphs} graphs, expected {GRAPHS}")
    different = len({code for _, code in check.binaries})
    say(f"{capability}: {len(check.binaries)} binaries, {different} different, {len(check.failures)} failures\n")
    say("".join(f"{failure}\n" for failure in check.failures))
    return bool(check.failures)


if __name__ == "__main__":
    if torch.version.cuda is None:
        sys.exit("This torch is built without CUDA: make check-triton makes an environment with the other build.")
    sys.exit(main(sys.argv[1]))
