"""The tables of docs/results/speed.md, from tests/bench/results and sizes.csv."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.bench.rows import NONE, by_case, read, table

FOLDER: Final = Path(__file__).parent
MACHINES: Final = {
    "cpu-x86_64-avx512-float32-products-2-threads": "AVX-512 without BF16",
    "cpu-x86_64-avx512-bf16-2-threads": "AVX-512 BF16",
    "cpu-x86_64-avx512-bf16-amx-2-threads": "AVX-512 BF16 and AMX",
}
# (bench, case, metric) -> what it is.
BARS: Final = {
    ("compare", "cold", "job_tokens_per_second"): "compare, tokens per second",
    ("compare", "cold_long", "job_tokens_per_second"): "compare on a long text, tokens per second",
    ("compare", "stored_reference", "job_tokens_per_second"): "compare, reference stored, tokens per second",
    ("compare", "stored_reference_long", "job_tokens_per_second"): "the same on a long text, tokens per second",
    ("sweep", "12_points", "forward_ratio"): "sweep of 12 values, passes per value",
    ("sweep", "12_points", "resident_last_over_fourth"): "sweep: memory after the last value over the fourth",
    ("sweep", "two_workers", "job_ratio"): "sweep: time of two workers over one",
    ("attribute", "30_layers", "search_forward_passes"): "attribute: search, passes of transformers",
    ("attribute", "30_layers", "search_engine_passes"): "attribute: search, passes of the engine",
    ("attribute", "30_layers", "resident_last_over_first"): "attribute: memory after the last part over the first",
    ("memory", "100k_over_10k", "peak_resident_ratio"): "compare: memory for 100,000 tokens over 10,000",
}
AT_LEAST: Final = "tokens_per_second"
JOBS: Final = {
    "cold": "both passes",
    "cold_long": "both passes, long text",
    "stored_reference": "reference stored",
    "stored_reference_long": "reference stored, long text",
}
WEIGHTS: Final = {"bf16": "bf16", "f32": "float32", "bf16-q4_1": "bf16, candidate Q4_1"}
SERVED: Final = {
    "calibrated_over_off_1": "calibrated over not, 1 stream",
    "calibrated_over_off_8": "calibrated over not, 8 streams",
    "calibrated_over_off_32": "calibrated over not, 32 streams",
    "repair_over_packed_1": "repaired over packed alone, 1 stream",
    "repair_over_packed_8": "repaired over packed alone, 8 streams",
    "repair_over_packed_32": "repaired over packed alone, 32 streams",
    "shadow_over_none_1pct": "1 % of requests scored over none",
}
VERIFIED: Final = {
    "reference": "the reference alone, greedy",
    "greedy": "verified, greedy",
    "sampled": "verified, sampled",
}
STEPS: Final = {"rtn": "`quantize.rtn`", "rtn_packed": "`quantize.rtn`, packed", "wanda": "`prune.wanda`"}
GB: Final = 1e9


def machines(bench: str) -> dict[str, dict[str, dict[str, float]]]:
    """Name of the kind of processor -> case -> metric -> value."""
    files = {name: read(FOLDER / "results" / f"{file}.csv") for file, name in MACHINES.items()}
    return {name: by_case(row for row in rows if row.bench == bench) for name, rows in files.items()}


def bars() -> str:
    """Each number that has a bar, per kind of processor."""
    lines = []
    for (bench, case, metric), words in BARS.items():
        found = [of.get(case, {}) for of in machines(bench).values()]
        bar = next(of[f"{metric}_bar"] for of in found if f"{metric}_bar" in of)
        sign = "≥" if metric.endswith(AT_LEAST) else "≤"
        lines.append([words, f"{sign} {bar:g}", *(_judged(of, metric) for of in found)])
    return table(["what", "bar", *MACHINES.values()], lines)


def _judged(of: Mapping[str, float], metric: str) -> str:
    if metric not in of or f"{metric}_met" not in of:
        return NONE
    places = ".0f" if of[metric] >= 100 else "#.3g"
    return f"{of[metric]:{places}}{'' if of[f'{metric}_met'] else ', **missed**'}"


def llama_cpp() -> str:
    """Rates of a compare job over those of llama.cpp's tool, on the processor that has both."""
    of = machines("compare")["AVX-512 without BF16"]
    lines = []
    for case, words in JOBS.items():
        cells = [_judged(of[case], f"over_llama_cpp_{weights}") for weights in WEIGHTS]
        lines.append([words, f"≥ {of[case]['over_llama_cpp_bf16_bar']:g}", *cells])
    return table(["job", "bar", *WEIGHTS.values()], lines)


def served() -> str:
    """Throughput of a replica with and without what a row names, on each processor where it was measured."""
    found = machines("serve")
    lines = []
    for case, words in SERVED.items():
        for processor in MACHINES.values():
            of = found[processor].get(case)
            if of is not None:
                middle, low, high = (of[f"throughput_ratio{end}"] for end in ("", "_low", "_high"))
                lines.append([words, processor, f"{middle:.3f}", f"{low:.3f} to {high:.3f}"])
    return table(["throughput", "processor", "median", "lowest and highest of the pairs"], lines)


def verified() -> str:
    """Tokens per second of verified decoding and of the reference alone, on each processor where they were measured."""
    lines = []
    for processor, of in machines("verified").items():
        for case, words in VERIFIED.items():
            rates = [f"{of[f'{case}_{count}']['tokens_per_second']:.0f}" for count in (1, 8) if f"{case}_{count}" in of]
            lines += [[words, processor, *rates]] if rates else []
    return table(["answers of 128 tokens", "processor", "tokens/s, 1 stream", "8 streams"], lines)


def sizes() -> str:
    """Memory and disk of a step on a large model."""
    lines = []
    for case, of in by_case(read(FOLDER / "sizes.csv")).items():
        missed = "" if of["peak_resident_met"] else ", **missed**"
        bound = f"≤ {of['peak_resident_bound'] / GB:.2f}"
        anonymous, resident = (of[name] / GB for name in ("peak_anonymous", "peak_resident"))
        share = f"{of['disk_over_model']:.2f}"
        lines.append([STEPS[case], f"{anonymous:.2f}", f"{resident:.2f}{missed}", bound, share])
    return table(["step", "memory, GB", "with mapped files, GB", "bar", "disk over the model"], lines)


PARTS: Final = {
    "speed-bars": bars,
    "speed-llama-cpp": llama_cpp,
    "speed-served": served,
    "speed-verified": verified,
    "speed-sizes": sizes,
}
