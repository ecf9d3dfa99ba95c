"""`python -m tests.bench.estimates [CASE …] [--demo FOLDER]`: how long steps take on a CPU, beside what the estimate
says; writes tests/bench/estimates.csv.

The models are the demo model and two with the shapes of Qwen2.5-0.5B and random weights: the whole one, and one with
four of its 24 layers for the steps that take longest. Each case runs in a process of its own, over random text.

`measured` is the processor time of the thread that runs the step, while torch has two threads and those that wait for
one another sleep. On an idle machine with two cores it is the time that passes; other work on the machine lengthens it
far less. The committed rows are from a machine that was busy, so `wall` means nothing there; `processor` is of all
threads. Rows with `imports` are of a run that loaded libraries while time was taken; that time was measured by itself,
and `ratio` leaves it out.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from pkgutil import resolve_name
from tempfile import TemporaryDirectory, gettempdir
from typing import Any, Final

from app.models.checkpoint import CheckpointInfo, inspect
from app.models.pace import TOKENS_PER_SECOND, Pace
from app.models.shapes import expected_tensors
from app.models.surgery_cost import surgery_cost
from app.recipes.recipe import STEPS
from app.settings import Settings
from tests.bench import processor
from tests.bench.rows import Row, by_case, emit, parse, read, replaced, write

RESULTS: Final = Path(__file__).with_suffix(".csv")
ROOT: Final = Path(__file__).resolve().parents[2]
BENCH: Final = "estimates"
CLOCKS: Final = ("measured", "wall", "processor")
IMPORTS: Final = "imports"
HERE: Final = Pace(TOKENS_PER_SECOND, "as it was measured")
TEXT: Final = {"calibration_windows": 4, "calibration_window": 512}
LESS: Final = TEXT | {"calibration_windows": 2}
_HALF: Final = {"sparsity": 0.5}
CASES: Final[dict[str, dict[str, Any]]] = {
    "rtn_4": {"type": "quantize.rtn", "bits": 4},
    "wanda_50": {"type": "prune.wanda", **_HALF, **TEXT},
    "smoothquant": {"type": "quantize.smoothquant", **TEXT},
    "gptq_4": {"type": "quantize.gptq", "bits": 4, **TEXT},
    "sparsegpt_50": {"type": "prune.sparsegpt", **_HALF, **TEXT},
    "awq_4": {"type": "quantize.awq", "bits": 4, **TEXT},
    "prune_gradient": {"type": "prune.gradient", **_HALF, **LESS, "passes": 2, "reconstruct_epochs": 2},
    "repair": {"type": "repair.lowrank", "rank": 16, **LESS, "block_epochs": 1, "distill_steps": 2},
}
DEMO: Final = "smollm2-135m"
_LLAMA: Final[dict[str, Any]] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "torch_dtype": "bfloat16",
}
_QWEN: Final[dict[str, Any]] = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "torch_dtype": "bfloat16"}
_OF_QWEN: Final[dict[str, Any]] = _QWEN | {
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "num_hidden_layers": 24,
    "vocab_size": 151936,
    "max_position_embeddings": 32768,
    "rope_theta": 1000000.0,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "use_sliding_window": False,
}
# Name → config.json, of the demo model what decides the shapes.
MODELS: Final[dict[str, dict[str, Any]]] = {
    DEMO: _LLAMA
    | {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "num_hidden_layers": 30,
        "vocab_size": 49152,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
    },
    "qwen2.5-0.5b": _OF_QWEN,
    "qwen2.5-0.5b-4": _OF_QWEN | {"num_hidden_layers": 4},
}


def shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Tensor → shape of one of `MODELS`."""
    config = MODELS[name]
    found = expected_tensors(config["architectures"][0], config) or {}
    return {tensor: tuple(shape) for tensor, shape in found.items() if tensor != "lm_head.weight"}


def outline(folder: Path, name: str) -> CheckpointInfo:
    """One of `MODELS` without its numbers: they are a hole in the file."""
    header: dict[str, Any] = {}
    end = 0
    for tensor, shape in shapes(name).items():
        start, end = end, end + 2 * prod(shape)
        header[tensor] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    told = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as stream:
        stream.write(len(told).to_bytes(8, "little") + told)
        stream.truncate(8 + len(told) + end)
    (folder / "config.json").write_text(json.dumps(MODELS[name]))
    return inspect(folder)


def make(folder: Path, name: str) -> None:
    """One of `MODELS` with random weights."""
    import torch
    from safetensors.torch import save_file

    draws = torch.Generator().manual_seed(0)

    def drawn(tensor: str, shape: tuple[int, ...]) -> torch.Tensor:
        made = torch.empty(shape, dtype=torch.bfloat16)
        return made.fill_(1) if tensor.endswith("norm.weight") else made.normal_(0, 0.02, generator=draws)

    folder.mkdir(parents=True)
    tensors = {tensor: drawn(tensor, shape) for tensor, shape in shapes(name).items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(MODELS[name]))


def estimated(info: CheckpointInfo, case: str) -> float:
    """Seconds that a step is taken to need on two cores."""
    step = STEPS[str(CASES[case]["type"])].model_validate(CASES[case])
    return surgery_cost(info, (step,), HERE, info, Settings())[0]


def measure(case: str, model: Path, folder: Path) -> list[Row]:
    """One step on the model, in this process."""
    import torch

    from workers.surgery.blockwise.skeleton import Skeleton
    from workers.surgery.calibration_text import CalibrationText
    from workers.surgery.reading import open_tensors
    from workers.surgery.recipe import apply
    from workers.surgery.store import CheckpointStore

    torch.set_num_threads(2)
    info = inspect(model)
    draws = torch.Generator().manual_seed(1)
    size = CASES[case].get("calibration_windows", 1), TEXT["calibration_window"]
    text = CalibrationText(torch.randint(0, info.vocabulary, size, generator=draws), "0" * 64, size[0], size[0], None)
    step = STEPS[str(CASES[case]["type"])].model_validate(CASES[case])
    # Its threads and libraries are there before time is taken, as in a worker that has run a job.
    torch.mm(torch.ones(512, 512), torch.ones(512, 512))
    resolve_name(step.runner)(step)
    with open_tensors(info, "cpu") as reader:
        Skeleton(info, reader.read, device="cpu").block(0)
    clocks = (time.thread_time, time.perf_counter, time.process_time)
    with TemporaryDirectory(dir=folder) as scratch:
        store = CheckpointStore(Path(scratch), 2**40)
        began = [clock() for clock in clocks]
        apply(info, (step,), device="cpu", store=store, calibration=lambda step: text).release()
        passed = [clock() - start for clock, start in zip(clocks, began, strict=True)]
    name = f"{case} of {model.name}"
    return [Row(BENCH, name, metric, value, "s") for metric, value in zip(CLOCKS, passed, strict=True)]


def took(values: Mapping[str, float]) -> float:
    """Seconds of a case, by the metrics of its rows."""
    return values["measured"] - values.get(IMPORTS, 0.0)


def reckoned(rows: Sequence[Row]) -> list[Row]:
    """The measured rows, in the order of the cases, with what is estimated now and its ratio to what was measured."""
    known = by_case(rows)
    found = [row for row in rows if row.metric == "processor" and row.unit == "cores"]
    for model in MODELS:
        with TemporaryDirectory() as folder:
            info = outline(Path(folder), model)
            for case in CASES:
                name = f"{case} of {model}"
                if name not in known:
                    continue
                values = {metric: known[name][metric] for metric in (*CLOCKS, IMPORTS) if metric in known[name]}
                values["estimated"] = estimated(info, case)
                found += [Row(BENCH, name, metric, value, "s") for metric, value in values.items()]
                found.append(Row(BENCH, name, "ratio", values["estimated"] / took(values), "ratio"))
    return found


def main() -> None:
    """Makes the models that are not there yet, and measures each case of each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help="default: all")
    parser.add_argument("--demo", type=Path, help="folder of the demo model; without it only estimates are made anew")
    parser.add_argument("--models", nargs="*", default=list(MODELS))
    parser.add_argument("--folder", type=Path, default=Path(gettempdir()) / "estimates", help="room for 6 GB")
    parser.add_argument("--here", action="store_true", help="measure the one case in this process")
    given = parser.parse_args()
    if given.demo is None:
        write(RESULTS, reckoned(read(RESULTS)))
        return
    given.folder.mkdir(parents=True, exist_ok=True)
    chosen = [(case, name) for name in given.models for case in given.cases or CASES]
    if given.here:
        ((case, name),) = chosen
        emit(measure(case, given.demo if name == DEMO else given.folder / name, given.folder))
        return
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}
    here = processor.here(BENCH, environment)
    for case, name in chosen:
        if name != DEMO and not (given.folder / name / "config.json").is_file():
            make(given.folder / name, name)
        command = [sys.executable, "-m", "tests.bench.estimates", case, "--here"]
        command += ["--demo", str(given.demo), "--models", name, "--folder", str(given.folder)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT, env=environment)
        rows = [here, *parse(done.stdout)]
        write(RESULTS, reckoned(replaced(read(RESULTS) if RESULTS.exists() else [], rows)))
        for row in rows:
            sys.stderr.write(f"{row.case:40} {row.metric:12} {row.value:12.6g} {row.unit}\n")


if __name__ == "__main__":
    main()
