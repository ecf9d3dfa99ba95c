"""Engines with the hooks of a deployment's server, in this process, and the same model in float32 in transformers."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from workers.calibrators import storage
from workers.calibrators.protocol import Calibrator, RowContext
from workers.engine import launch, mending
from workers.engine.isolation import alone_in_the_process, globals_kept, quiet_vllm
from workers.engine.serving import engines, plugin, processor
from workers.engine.serving.batch import KEEP_HIDDEN, REQUEST, VERSION
from workers.engine.serving.config import VARIABLE, ServingConfig

Tiny = Callable[..., Path]


@dataclass
class Wanted:
    """One request, and what came of it."""

    prompt: list[int]
    version: str = "identity"
    tokens: int = 8
    request: str = ""
    keep_hidden: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    output: Any = None

    @property
    def drawn(self) -> list[int]:
        return list(self.output.outputs[0].token_ids)

    @property
    def logprobs(self) -> torch.Tensor:
        """Of every token of the vocabulary at each drawn position, [T, V]."""
        return rows_of(self.output.outputs[0].logprobs)


def rows_of(logprobs: Sequence[Mapping[int, Any]]) -> torch.Tensor:
    """vLLM's dictionaries as one tensor, [T, V]."""
    return torch.tensor([[row[token].logprob for token in range(len(row))] for row in logprobs])


class Served:
    """An engine in this process. `hooked` False: the same model and arguments without anything of ours."""

    def __init__(self, checkpoint: Path, home: Path, architecture: str, *, hooked: bool = True, **arguments: Any):
        self.home = home
        self.profiles = home / "profiles"
        self.profiles.mkdir(parents=True)
        self.file = home / "versions.json"
        self.config = ServingConfig(
            deployment="tiny",
            architecture=architecture,
            profiles=self.profiles,
            versions_file=self.file,
            hidden=home / "hidden",
            door_file=home / "door",
            fingerprint="f" * 16,
        )
        (home / "serving.json").write_text(self.config.model_dump_json())
        launch.load_vllm()
        from vllm.engine.arg_utils import EngineArgs
        from vllm.model_executor.model_loader.utils import _MODEL_ARCH_BY_HASH
        from vllm.model_executor.models.registry import ModelRegistry
        from vllm.v1.engine.llm_engine import LLMEngine

        given: dict[str, Any] = {
            "model": str(checkpoint),
            "skip_tokenizer_init": True,
            "load_format": "safetensors",
            "use_tqdm_on_load": False,
            "generation_config": "vllm",
            "dtype": "float32",
            "max_model_len": 256,
            "max_num_batched_tokens": 512,
            "max_num_seqs": 16,
            "enable_prefix_caching": True,
            "kv_cache_memory_bytes": 16 << 20,
            "enforce_eager": True,
            "max_logprobs": -1,
            "disable_log_stats": True,
            "seed": 0,
        } | arguments
        before = dict(ModelRegistry.models)
        _MODEL_ARCH_BY_HASH.clear()  # plain and hooked engines of one process have equal configurations
        os.environ[VARIABLE] = str(home / "serving.json")
        try:
            with globals_kept(), quiet_vllm(), alone_in_the_process():
                if hooked:
                    plugin.register_model(architecture)
                    given["logits_processors"] = [processor.NAME]
                else:
                    mending.check_known(architecture)
                config = EngineArgs(**given).create_engine_config()
                mending.renew_groups(config)
                self.engine: Any = LLMEngine.from_vllm_config(config, disable_log_stats=True)
        finally:
            del os.environ[VARIABLE]
            ModelRegistry.models.clear()
            ModelRegistry.models.update(before)
            _MODEL_ARCH_BY_HASH.clear()
        launch._workspaces[id(self.engine)] = None
        runner = self.engine.model_executor.driver_worker.worker.model_runner
        self.hooks = engines.of(runner.vllm_config)
        assert (self.hooks is not None) is hooked

    @property
    def hooked(self) -> engines.Engine:
        assert self.hooks is not None
        return self.hooks

    def save(self, calibrator: Calibrator, number: int) -> str:
        """Puts a calibrator among the profiles and returns its version."""
        version = f"cal-{number:016x}"
        storage.save(calibrator, self.profiles / version)
        return version

    def want(self, *versions: str) -> None:
        """Asks for versions and waits until the engine has loaded or refused them, and dropped all others."""
        previous = self.hooked.watcher._seen
        temporary = self.file.with_suffix(".new")
        temporary.write_text(json.dumps({"versions": versions}))
        temporary.replace(self.file)
        deadline = time.monotonic() + 120
        while self.hooked.watcher._seen == previous or set(versions) != {
            *self.hooked.versions.loaded,
            *self.hooked.versions.refused,
        }:
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def add(self, wanted: Wanted, name: str) -> None:
        from vllm import SamplingParams
        from vllm.inputs.engine import tokens_input
        from vllm.sampling_params import RequestOutputKind

        extra: dict[str, Any] = {}
        if self.hooks is not None:
            extra = {VERSION: wanted.version, REQUEST: wanted.request or f"request-{name}"}
            if wanted.keep_hidden:
                extra[KEEP_HIDDEN] = 1
        options = {"temperature": 0.0, "max_tokens": wanted.tokens, "ignore_eos": True, "logprobs": -1}
        params = SamplingParams(
            **(options | wanted.options), extra_args=extra, output_kind=RequestOutputKind.FINAL_ONLY
        )
        processor.RowTracker.validate_params(params)
        self.engine.add_request(name, tokens_input(list(wanted.prompt)), params)

    def step(self, wanted: Mapping[str, Wanted]) -> None:
        for output in self.engine.step():
            if output.finished:
                wanted[output.request_id].output = output

    def run(self, *wanted: Wanted) -> list[Wanted]:
        """All at once, to the end."""
        names = {str(index): one for index, one in enumerate(wanted)}
        for name, one in names.items():
            self.add(one, name)
        while self.engine.has_unfinished_requests():
            self.step(names)
        self.settle()
        return list(wanted)

    def settle(self) -> None:
        """The engine is told of requests that have ended only when it next runs."""
        self.engine.step()

    def close(self) -> None:
        if self.hooks is not None:
            self.hooks.close()
        launch.stop(self.engine)


Start = Callable[..., Served]


@pytest.fixture(scope="module")
def start(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """`start(kind, **arguments)`: an engine, closed at the end of the module."""
    made: list[Served] = []

    def begin(kind: str = "llama", *, checkpoint: Path | None = None, hooked: bool = True, **arguments: Any) -> Served:
        folder = checkpoint or tiny(kind)
        architecture = json.loads((folder / "config.json").read_text())["architectures"][0]
        home = tmp_path_factory.mktemp("served")
        made.append(Served(folder, home, architecture, hooked=hooked, **arguments))
        return made[-1]

    yield begin
    for one in made:
        one.close()


class Oracle:
    """The model in transformers and float32, its last hidden states corrected, one sequence at a time, no cache."""

    def __init__(self, checkpoint: Path) -> None:
        from transformers import AutoModelForCausalLM

        self.model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()

    def logprobs(self, tokens: list[int], calibrator: Calibrator | None = None) -> torch.Tensor:
        """Log-probabilities of the token after each of `tokens`, [T, V]."""
        caught: list[torch.Tensor] = []
        head = self.model.get_output_embeddings()

        def correct(_: Any, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            caught.append(given[0])
            if calibrator is None:
                return given
            return (calibrator.apply_hidden(given[0][0], context)[None],)

        context = RowContext(torch.arange(1, len(tokens) + 1), torch.tensor(tokens))
        hook = head.register_forward_pre_hook(correct)
        try:
            with torch.no_grad():
                logits = self.model(torch.tensor([tokens])).logits[0]
        finally:
            hook.remove()
        self.hidden = caught[0][0]
        return (logits if calibrator is None else calibrator.apply_logits(logits, context)).log_softmax(-1)

    def greedy(self, prompt: list[int], count: int, calibrator: Calibrator | None = None) -> list[int]:
        tokens = list(prompt)
        for _ in range(count):
            tokens.append(int(self.logprobs(tokens, calibrator)[-1].argmax()))
        return tokens[len(prompt) :]

    def agrees(self, wanted: Wanted, calibrator: Calibrator | None = None) -> None:
        """That the distribution shown at each drawn position is the calibrated one, and greedy tokens its greatest."""
        drawn = wanted.drawn
        expected = self.logprobs([*wanted.prompt, *drawn], calibrator)[len(wanted.prompt) - 1 : -1]
        torch.testing.assert_close(wanted.logprobs, expected, atol=2e-3, rtol=1e-3)
        chosen = expected.gather(1, torch.tensor(drawn)[:, None])[:, 0]
        assert bool((expected.amax(1) - chosen < 2e-3).all())
