"""The cases of `make bench`; each is run in a process of its own by tests.bench.run.

The text is the shipped corpora joined to long documents, so that windows are full (512 tokens); HEMOSTAT_BENCH_TEXT may
name another .txt or .jsonl file below its own folder. Models: the demo model (or the checkpoint HEMOSTAT_BENCH_MODEL),
and the same at 4 bits (round to nearest, groups of 64).
"""

import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from tests.bench.rows import Row, emit
from workers.engine import environment

environment.prepare()

import numpy as np
import torch

from app.kinds.compare.report import CompareReport
from app.kinds.compare.request import CompareRequest
from app.models.checkpoint import inspect
from app.models.registry import register
from app.settings import Settings
from workers.diagnosis.compare.job import compare
from workers.distributions.divergence import Divergence
from workers.distributions.head import Head
from workers.engine.room import EngineRoom
from workers.process.handler import JobContext
from workers.surgery.import_gguf import demo_gguf, import_gguf
from workers.surgery.recipe import apply
from workers.surgery.store import CheckpointStore
from workers.text.shipped import shipped_documents
from workers.text.tokenization import load_tokenizer

MODEL = Path(os.environ.get("HEMOSTAT_BENCH_MODEL") or Path(__file__).resolve().parents[2] / ".cache" / "smollm2-135m")
RECIPE = {"type": "quantize.rtn", "bits": 4, "group_size": 64, "symmetric": False}
REPEATS = 3
TOKENS = 20_000
LONG_TOKENS = 290_000
LONG_CHARACTERS = 9000


class BenchContext:
    """A job's context without a service: progress and metrics go nowhere."""

    def __init__(self, settings: Settings, name: str) -> None:
        self.job_id = name
        self.attempt = 1
        self.settings = settings
        self.scratch = settings.job_dir(name) / "partial"
        self.output = settings.job_dir(name) / "attempt-1"
        self.scratch.mkdir(parents=True)
        self.output.mkdir(parents=True)

    def progress(self, phase: str, done: int, total: int) -> None: ...
    def log(self, message: str) -> None: ...
    def check_cancelled(self) -> None: ...
    def observe(self, name: str, value: float, **labels: str) -> None: ...
    def observe_many(self, name: str, values: Iterable[float], **labels: str) -> None: ...


def prepared(home: Path, tokens: int | None = None) -> Settings:
    """A home with the demo model and a text of about `tokens` tokens (None: all of the shipped text)."""
    settings = Settings(home=home, text_root=home / "texts")
    (home / "texts").mkdir(parents=True)
    register(settings.models_file, "smollm2-135m", MODEL)
    named = os.environ.get("HEMOSTAT_BENCH_TEXT")
    shipped = (document for corpus in ("evaluation", "calibration") for document in shipped_documents(corpus))
    whole = Path(named).read_text() if named else "\n\n".join(_text(document) for document in shipped)
    if tokens is not None:
        a_token = len(whole) / len(load_tokenizer(MODEL)(whole, verbose=False)["input_ids"])
        whole = (whole * (1 + int(tokens * a_token / len(whole))))[: int(tokens * a_token)]
    documents = [whole[start : start + LONG_CHARACTERS] for start in range(0, len(whole), LONG_CHARACTERS)]
    lines = [json.dumps({"id": f"b{n}", "domain": "bench", "text": text}) for n, text in enumerate(documents)]
    (home / "texts" / "bench.jsonl").write_text("\n".join(lines) + "\n")
    return settings


def _text(document: Any) -> str:
    return document.text or "\n".join(message.content for message in document.messages)


def request(recipe: list[dict[str, Any]] | None = None) -> CompareRequest:
    """The job that is measured."""
    return CompareRequest.model_validate(
        {
            "kind": "compare",
            "reference": {"model": "smollm2-135m"},
            "candidate": {"model": "smollm2-135m", "recipe": [RECIPE] if recipe is None else recipe},
            "text": {"source": "file", "path": "bench.jsonl"},
            "window": 512,
        }
    )


def job(settings: Settings, room: EngineRoom, name: str) -> tuple[CompareReport, float]:
    """One compare job and its seconds, the artifact included."""
    context: JobContext = BenchContext(settings, name)
    start = time.perf_counter()
    report = compare(request(), context, room)
    return report, time.perf_counter() - start


def timed(work: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def bench_compare(home: Path) -> list[Row]:
    """Cold job, jobs with a stored reference, the candidate's forward alone and the divergence alone, interleaved."""
    settings = prepared(home, TOKENS)
    start = time.perf_counter()
    room = EngineRoom(settings)
    opening = time.perf_counter() - start
    cold, cold_seconds = job(settings, room, "cold")
    store = CheckpointStore(settings.home / "checkpoints", settings.checkpoint_budget_bytes)
    modified = apply(inspect(MODEL), request().candidate.recipe, device="cpu", store=store)
    engine = room.engine(modified.path, 512)
    tokenizer = load_tokenizer(MODEL)
    lines = (settings.home / "texts" / "bench.jsonl").read_text().splitlines()
    texts = [np.asarray(tokenizer(json.loads(line)["text"], verbose=False)["input_ids"], np.int32) for line in lines]
    windows = [ids[start : start + 512] for ids in texts for start in range(0, len(ids), 512) if len(ids) - start > 1]
    tokens = sum(map(len, windows))
    hidden = [state for _, state in engine.score(windows)]
    candidate_TD = torch.cat([state[:-1] for state in hidden]).to(room.pool.device)
    reference_TD = candidate_TD.flip(0).contiguous()  # any other states cost the same
    next_T = np.concatenate([window[1:] for window in windows])
    divergence = Divergence(Head.load(MODEL), Head.load(modified.path), device=room.pool.device)
    compiling = timed(divergence.warm_up)
    forward, pure, passes, jobs = [], [], [], []
    for repeat in range(REPEATS):
        before = os.times()
        forward.append(timed(lambda: [None for _ in room.engine(modified.path, 512).score(windows)]))
        after = os.times()
        busy = (after.user + after.system - before.user - before.system) / forward[-1]
        pure.append(timed(lambda: divergence(reference_TD, candidate_TD, next_T)))
        report, seconds = job(settings, room, f"warm{repeat}")
        assert report.provenance.reference_from_store
        passes.append(report.provenance.seconds["candidate"])
        jobs.append(seconds)
    scored = cold.tokens
    forward_rate, pass_rate = tokens / statistics.median(forward), scored / statistics.median(passes)
    ratios = [(scored / p) / (tokens / f) for p, f in zip(passes, forward, strict=True)]
    file_bytes = sum(file.stat().st_size for file in (settings.home / "references").rglob("hidden.bin"))
    rows = [
        Row("engine", "candidate_forward", "tokens_per_second", forward_rate, "tokens/s"),
        Row("engine", "candidate_forward", "busy_cores", busy, "cores"),
        Row("engine", "room", "import_seconds", opening, "s"),
        Row("divergence", "kernel", "tokens_per_second", len(next_T) / statistics.median(pure), "tokens/s"),
        Row("divergence", "kernel", "compile_seconds", compiling, "s"),
        Row("compare", "stored_reference", "scored_tokens", scored, "tokens"),
        Row("compare", "stored_reference", "tokens_per_second", pass_rate, "tokens/s"),
        Row("compare", "stored_reference", "forward_ratio", statistics.median(ratios), "ratio"),
        Row("compare", "stored_reference", "forward_ratio_min", min(ratios), "ratio"),
        Row("compare", "stored_reference", "forward_ratio_max", max(ratios), "ratio"),
        Row("compare", "stored_reference", "job_seconds", statistics.median(jobs), "s"),
        Row("compare", "stored_reference", "job_tokens_per_second", scored / statistics.median(jobs), "tokens/s"),
        Row("compare", "cold", "job_seconds", cold_seconds, "s"),
        Row("compare", "cold", "job_tokens_per_second", scored / cold_seconds, "tokens/s"),
        Row("store", "reference", "bytes_per_token", file_bytes / tokens, "B/token"),
        Row("compare", "rtn4", "kl_mean", cold.divergence.kl.mean or float("nan"), "nats"),
    ]
    rows += [
        Row("compare", "cold", f"{phase}_seconds", seconds, "s") for phase, seconds in cold.provenance.seconds.items()
    ]
    room.close()
    return rows


def bench_engine_changes(home: Path) -> list[Row]:
    """Other weights in a warm process: of the same shapes, which are swapped, and of other depths, each of which takes
    an engine of its own. The look for weights that are not finite is part of both; the first swap is left out."""
    settings = prepared(home, 1000)
    room = EngineRoom(settings)
    store = CheckpointStore(settings.home / "checkpoints", settings.checkpoint_budget_bytes)
    room.engine(MODEL, 512)
    knobs = {
        "swap": [{"type": "prune.magnitude", "sparsity": 0.1 * tenths} for tenths in range(1, 6)],
        "start": [{"type": "prune.layers", "layers": list(range(10, 10 + gone))} for gone in range(1, 5)],
    }
    rows = []
    for change, steps in knobs.items():
        seconds = []
        for step in steps:
            made = apply(inspect(MODEL), request([step]).candidate.recipe, device="cpu", store=store)
            seconds.append(timed(partial(room.engine, made.path, 512)))
        rows.append(Row("engine", change, "seconds", statistics.median(seconds[-4:]), "s"))
    rows += [Row("engine", "swap", "starts", room.pool.starts - len(knobs["start"]), "count")]
    room.close()
    return rows


def bench_prompt_logprobs(home: Path) -> list[Row]:
    """vLLM's own full-vocabulary prompt log-probabilities: the road not taken. As they come (an object for each token
    of the vocabulary), and flat (`flat_logprobs`, which nobody gets unless they ask)."""
    from vllm import SamplingParams

    from workers.engine.generation import GenerationEngine
    from workers.engine.pool import EnginePool

    settings = prepared(home)
    prompt = load_tokenizer(MODEL)("The quick brown fox jumps over the lazy dog. " * 8, verbose=False)["input_ids"][:49]
    pool = EnginePool(settings)
    rows = []
    with GenerationEngine(MODEL, pool=pool, length=64, streams=1) as engine:
        for name, flat in (("prompt_logprobs", False), ("prompt_logprobs_flat", True)):
            params = SamplingParams(max_tokens=1, prompt_logprobs=-1, flat_logprobs=flat, detokenize=False)
            engine.run([prompt[:3]], [params])
            seconds = min(timed(lambda params=params: engine.run([prompt], [params])) for _ in range(2))
            rows.append(Row("engine", name, "tokens_per_second", (len(prompt) - 1) / seconds, "tokens/s"))
    pool.close()
    return rows


def bench_memory(home: Path, tokens: int, name: str) -> list[Row]:
    """Peak resident memory of a cold job over so many tokens."""
    settings = prepared(home, tokens)
    room = EngineRoom(settings)
    report, seconds = job(settings, room, "memory")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    room.close()
    return [
        Row("memory", name, "scored_tokens", report.tokens, "tokens"),
        Row("memory", name, "peak_resident", peak, "B"),
        Row("memory", name, "job_seconds", seconds, "s"),
    ]


def bench_compare_long(home: Path) -> list[Row]:
    """A cold job and one with its reference stored over about as much text as a perplexity corpus has: what is done
    once counts as little as it does there."""
    settings = prepared(home, LONG_TOKENS)
    room = EngineRoom(settings)
    rows = []
    for name in ("cold_long", "stored_reference_long"):
        report, seconds = job(settings, room, name)
        assert report.provenance.reference_from_store == (name != "cold_long")
        rows += [
            Row("compare", name, "scored_tokens", report.tokens, "tokens"),
            Row("compare", name, "job_seconds", seconds, "s"),
            Row("compare", name, "job_tokens_per_second", report.tokens / seconds, "tokens/s"),
        ]
        rows += [
            Row("compare", name, f"{phase}_seconds", part, "s") for phase, part in report.provenance.seconds.items()
        ]
    room.close()
    return rows


def main(name: str) -> None:
    """Runs one case below a folder of its own, with the demo model made if it is missing."""
    if not (MODEL / "config.json").is_file():
        import_gguf(demo_gguf(), MODEL)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        match name:
            case "compare":
                rows = bench_compare(home)
            case "compare_long":
                rows = bench_compare_long(home)
            case "engine_changes":
                rows = bench_engine_changes(home)
            case "prompt_logprobs":
                rows = bench_prompt_logprobs(home)
            case "memory_10k":
                rows = bench_memory(home, 10_000, "10k")
            case "memory_100k":
                rows = bench_memory(home, 100_000, "100k")
            case "sweep" | "attribute":
                from tests.bench import diagnosis  # takes its text and request from here

                rows = diagnosis.bench_sweep(home) if name == "sweep" else diagnosis.bench_attribute(home)
            case "sweep_two_workers":
                from tests.bench import sharing  # likewise

                rows = sharing.bench_two_workers(home)
            case "verified":
                from tests.bench.verified import bench_verified

                settings = Settings(home=home)
                store = CheckpointStore(settings.home / "checkpoints", settings.checkpoint_budget_bytes)
                modified = apply(inspect(MODEL), request().candidate.recipe, device="cpu", store=store)
                rows = bench_verified(settings, MODEL, modified.path)
            case "calibrate":
                from tests.bench.calibrate import bench_calibrate  # likewise

                rows = bench_calibrate(home)
            case _:
                raise SystemExit(f"there is no case {name}")
    emit(rows)


if __name__ == "__main__":
    main(sys.argv[1])
