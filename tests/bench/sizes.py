"""`python -m tests.bench.sizes [CASE …]`: memory and disk that surgery takes with a large model; writes
tests/bench/sizes.csv.

The model has the shapes of Llama 3 8B, four of its 32 layers, and random bf16 weights: 3.8 GB. A step works on one
block at a time, so that its peak is that of the whole model. What grows with depth is the disk: `disk_over_model` times
the 16 GB of the whole one. Each step runs in a process of its own.

`peak_anonymous` is memory that the process needs. `peak_resident` has the pages of mapped files beside it. The kernel
takes these back as soon as anyone needs memory. The committed `seconds` are from a machine that was busy with other
work; `processor_seconds` are not of use for more than an order of magnitude either.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path
from tempfile import gettempdir

import torch

from app.models.checkpoint import inspect
from app.recipes.recipe import STEPS
from tests.bench.rows import Row, emit, parse, read, replaced, write
from workers.surgery.calibration_text import CalibrationText
from workers.surgery.recipe import apply
from workers.surgery.safetensors_writer import Planned, plan_shards, write_shards
from workers.surgery.store import CheckpointStore

RESULTS = Path(__file__).with_suffix(".csv")
ROOT = Path(__file__).resolve().parents[2]
LAYERS, HIDDEN, INNER, HEADS, GROUPS, VOCABULARY = 4, 4096, 14336, 32, 8, 128256
MOST_BYTES = 6 * 2**30
WINDOWS, WINDOW = 8, 512
CASES = {
    "rtn": {"type": "quantize.rtn", "bits": 4},
    "rtn_packed": {"type": "quantize.rtn", "bits": 4, "form": "packed"},
    "wanda": {
        "type": "prune.wanda",
        "sparsity": 0.5,
        "calibration_windows": WINDOWS,
        "calibration_window": WINDOW,
    },
}


def config(layers: int = LAYERS) -> dict[str, object]:
    """config.json of Llama 3 8B with so many layers."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "torch_dtype": "bfloat16",
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_attention_heads": HEADS,
        "num_key_value_heads": GROUPS,
        "num_hidden_layers": layers,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 8192,
        "rope_theta": 500000.0,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
    }


def make(folder: Path, layers: int = LAYERS) -> None:
    """A checkpoint with random weights; none of it is held longer than it takes to write one tensor."""
    keys = HIDDEN // HEADS * GROUPS
    of_a_layer = {
        "input_layernorm": (HIDDEN,),
        "self_attn.q_proj": (HIDDEN, HIDDEN),
        "self_attn.k_proj": (keys, HIDDEN),
        "self_attn.v_proj": (keys, HIDDEN),
        "self_attn.o_proj": (HIDDEN, HIDDEN),
        "post_attention_layernorm": (HIDDEN,),
        "mlp.gate_proj": (INNER, HIDDEN),
        "mlp.up_proj": (INNER, HIDDEN),
        "mlp.down_proj": (HIDDEN, INNER),
    }
    shapes = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN), "model.norm.weight": (HIDDEN,)}
    for layer in range(layers):
        shapes |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in of_a_layer.items()}
    shapes["lm_head.weight"] = (VOCABULARY, HIDDEN)
    shards = plan_shards(Planned(name, "BF16", shape) for name, shape in shapes.items())
    order = [one for shard in shards for one in shard]
    folder.mkdir(parents=True, exist_ok=True)
    write_shards(folder, shards, ((one.name, _random(one.shape)) for one in order))
    (folder / "config.json").write_text(json.dumps(config(layers)))


def _random(shape: tuple[int, ...]) -> torch.Tensor:
    if len(shape) == 1:
        return torch.ones(shape, dtype=torch.bfloat16)
    return torch.empty(shape, dtype=torch.bfloat16).normal_(0, 0.02, generator=torch.Generator().manual_seed(shape[0]))


class Watch(threading.Thread):
    """The most that this process held, and a folder took, seen twenty times a second; in bytes."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self._folder, self._ended = folder, threading.Event()
        self.anonymous = self.mapped = self.disk = 0

    def run(self) -> None:
        """Until `end`."""
        while not self._ended.wait(0.05):
            lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
            self.anonymous = max(self.anonymous, _bytes(lines["RssAnon"]))
            self.mapped = max(self.mapped, _bytes(lines["RssFile"]))
            self.disk = max(self.disk, _taken(self._folder))

    def end(self) -> None:
        """Stops looking."""
        self._ended.set()
        self.join()


def _bytes(told: str) -> int:
    return int(told.split(maxsplit=1)[0]) * 1024


def _taken(folder: Path) -> int:
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(path) / name).stat().st_blocks * 512
            except FileNotFoundError:
                continue
    return total


def measure(case: str, model: Path, scratch: Path) -> list[Row]:
    """One step on the model, in this process."""
    info = inspect(model)
    generator = torch.Generator().manual_seed(1)
    text = CalibrationText(
        torch.randint(0, VOCABULARY, (WINDOWS, WINDOW), generator=generator), "0" * 64, WINDOWS, WINDOWS, None
    )
    store = CheckpointStore(scratch, 2**40)
    watch = Watch(scratch)
    watch.start()
    began = time.perf_counter()
    step = STEPS[str(CASES[case]["type"])].model_validate(CASES[case])
    apply(info, (step,), device="cpu", store=store, calibration=lambda step: text).release()
    seconds = time.perf_counter() - began
    watch.end()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    figures = {
        "peak_anonymous": (watch.anonymous, "bytes"),
        "peak_mapped": (watch.mapped, "bytes"),
        "peak_resident": (usage.ru_maxrss * 1024, "bytes"),
        "peak_resident_bound": (MOST_BYTES, "bytes"),
        "peak_resident_met": (usage.ru_maxrss * 1024 <= MOST_BYTES, ""),
        "model": (info.bytes, "bytes"),
        "peak_disk": (watch.disk, "bytes"),
        "disk_over_model": (watch.disk / info.bytes, "ratio"),
        "seconds": (seconds, "s"),
        "processor_seconds": (usage.ru_utime + usage.ru_stime, "s"),
    }
    return [Row("sizes", case, name, float(value), unit) for name, (value, unit) in figures.items()]


def main() -> None:
    """Makes the model where it is not there yet, and measures each case in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", help="default: all")
    parser.add_argument("--folder", type=Path, default=Path(gettempdir()) / "sizes", help="room for 12 GB")
    parser.add_argument("--here", action="store_true", help="measure the one case in this process")
    given = parser.parse_args()
    model, scratch = given.folder / "model", given.folder / "store"
    if given.here:
        emit(measure(given.cases[0], model, scratch))
        return
    if not (model / "config.json").is_file():
        make(model)
    rows: list[Row] = []
    for case in given.cases or CASES:
        command = [sys.executable, "-m", "tests.bench.sizes", case, "--here", "--folder", str(given.folder)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
        subprocess.run(["rm", "-rf", str(scratch)], check=True)
        rows += parse(done.stdout)
        for row in rows[-10:]:
            sys.stderr.write(f"{row.case:12} {row.metric:22} {row.value:16.6g} {row.unit}\n")
    write(RESULTS, replaced(read(RESULTS) if RESULTS.exists() else [], rows))


if __name__ == "__main__":
    main()
