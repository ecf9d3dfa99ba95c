"""docs/recipes/measured.md from tests/bench/mitigation.csv: `python -m tests.bench.mitigation_page`.

Every case of the bench is on the page: those that were measured with their numbers, the others as not measured. A bar
that was missed says so.
"""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.bench.mitigation_cases import CASES, OWN_TEXT, SECONDS, Case

RESULTS = Path(__file__).with_name("mitigation.csv")
PAGE = Path(__file__).parents[2] / "docs" / "recipes" / "measured.md"
TEXTS = {"wiki": "WikiText-2", "unfitted": "other text"}
# What a CPU with AMX makes of the demo model against itself, nats (docs/verdict.md), and the share of a divergence from
# which on it is marked that this may be in it.
FLOOR, MARKED = (0.0007, 0.0012), 0.1
IN_FLOOR, ACROSS = "‡", "†"
# The row that a case has since versions are kept.
SURGERY = "version_surgery"
HEAD = """# Measured

Written by `python -m tests.bench.mitigation_page` from `tests/bench/mitigation.csv`, which `make bench-mitigation`
fills.

Model: SmolLM2-135M-Instruct, bf16, on vLLM for CPUs. Steps that look at text were given articles 1, 3, 5, … of
WikiText-2's raw test file, 32 windows of 512 tokens unless the recipe says otherwise (repair: 64), seed 0.
KL(reference‖candidate) in nats a token with its 95 % interval, documents resampled: over the beginnings of 20 other
articles (*WikiText-2*), and over 24 shipped documents of other kinds that nothing was fitted on (*other text*).
Seconds are those of a recipe's last step, mostly on one core of an AVX-512 machine that other work kept busy: upper
bounds. Trained repair at rank 16 and after RTN, gradient pruning to one half with recovery, `lowrank.svd` at a fifth
and GPTQ on 128 windows ran alone on two cores with AVX-512 BF16; repair of dropped layers, gradient pruning without
recovery and repair at rank 64 after Wanda on what tests left of one of them. `quantize.dynamic` and
GPTQ (32 windows, not packed) ran on a processor with AVX-512 but without its BF16: on four fifths of a core each, GPTQ
at 4 bits and `quantize.dynamic` on layers alone on two.

Three repairs have other settings than the defaults, which missed a bar on these very texts: after RTN and of dropped
layers at rank 64, after Wanda at rank 16. Their settings were chosen by these numbers ([repair](repair.md)), so what
the three say of texts that took no part in the choice is somewhat less.

"""

TABLE = ("| recipe | seconds | bits a weight | KL, WikiText-2 | KL, other text |", "|---|---|---|---|---|")
ANEW = (
    "A ratio is of two candidates that were measured in one run. Where one of them was made anew since, on a processor",
    "or by a number of threads that rounds otherwise, the ratio of the numbers above is another, by up to 1.4 % of it.",
)
BARS = (
    f"A bar is met where the ratio itself is within it. {ACROSS}: the interval reaches across the bar, so that the",
    "ratio alone meets or misses it.",
)
VERSIONS = (
    "The version of the surgery, or of a step, is raised where its code gives other weights than before. A row that",
    "was measured since versions are kept says which they were. Processor and number of threads stand in no row; what",
    "is known of them is told at the top.",
)
MIXTURE = (
    "The demo model is dense. These rows are of a Mixtral of 3 layers, 64 channels and 4 experts, 2 of them a token,",
    "trained on the same text for 300 steps (`tests/bench/mixture.py`), with a byte-level vocabulary of 320 tokens:",
    "what they show is how steps stand to each other, not what a mixture that serves anybody would lose. Its noise",
    "floor was not measured: none of its numbers is marked.",
)


def read() -> dict[str, dict[str, float]]:
    """Case → metric → value, of the demo model. A case whose recipe is another now than what was measured is left out:
    its numbers are not those of the recipe that would stand beside them."""
    found: dict[str, dict[str, float]] = {}
    with RESULTS.open(newline="") as stream:
        for row in csv.DictReader(stream):
            if row["bench"] == "mitigation":
                found.setdefault(row["case"], {})[row["metric"]] = float(row["value"])
    return {name: of for name, of in found.items() if name in CASES and of.get("recipe") == CASES[name].mark}


def page(found: Mapping[str, Mapping[str, float]]) -> str:
    """The page."""
    measured = [case for case in CASES.values() if case.name in found]
    rows = {of: [_row(one, found[one.name]) for one in measured if one.model == of] for of in ("demo", "mixture")}
    missing = [case for case in CASES.values() if case.name not in found]
    unheld = [line for case in measured for line in _unheld(case, found[case.name])]
    lines = ["## Recipes", "", *_floor_told(), "", *TABLE]
    lines += rows["demo"]
    if rows["mixture"]:
        lines += ["", "## A mixture of experts", "", *MIXTURE, "", *TABLE, *rows["mixture"]]
    lines += ["", "## Bars", "", "What each method is held to, as a ratio of two KLs on the same documents.", ""]
    lines += [*BARS, ""]
    lines += [*ANEW, ""]
    lines += ["Of what a repair removes on WikiText-2, two thirds have to be removed on other text.", ""]
    lines += ["| recipe | against | text | ratio | bar | |", "|---|---|---|---|---|---|"]
    lines += [line for case in measured for line in _bars(case, found[case.name])]
    lines += ["", "## Seconds", "", *_waited_for(), ""]
    lines += ["| recipe | seconds | allowed | |", "|---|---|---|---|"]
    lines += [line for case in measured for line in _seconds(case, found[case.name])]
    lines += ["", "## Versions", "", *VERSIONS, "", *_versions(measured, found)]
    if missing or unheld:
        lines += ["", "## Not measured"]
    if missing:
        lines += ["", "These cases of the bench have no numbers yet:", ""]
        lines += [f"- {_recipe(case)}" for case in missing]
    if unheld:
        lines += ["", "These bars of measured cases have no ratio yet:", ""]
        lines += unheld
    return HEAD + "\n".join(lines) + "\n"


def _versions(measured: Sequence[Case], found: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """What each row was measured with, and which rows do not say."""
    told = [case for case in measured if SURGERY in found[case.name]]
    untold = [case for case in measured if case not in told]
    if told:
        yield from ("| recipe | surgery | steps |", "|---|---|---|")
        yield from (_version(case, found[case.name]) for case in told)
    if untold and told:
        yield from ("", "Of these rows no version is on record:", "")
        yield from (f"- {_recipe(case)}" for case in untold)
    elif untold:
        yield "Of none of the rows above is a version on record."


def _version(case: Case, of: Mapping[str, float]) -> str:
    names = {f"version_{number}": step["type"] for number, step in enumerate(case.recipe, 1)}
    for beside, recipe in case.beside.items():
        names |= {f"version_{beside}_{n}": f"{step['type']} of {beside}" for n, step in enumerate(recipe, 1)}
    steps = ", ".join(f"`{name}` {of[metric]:.0f}" for metric, name in names.items() if metric in of)
    return f"| {_recipe(case)} | {of[SURGERY]:.0f} | {steps or '–'} |"


def _row(case: Case, of: Mapping[str, float]) -> str:
    seconds = f"{of['seconds']:.0f}" if "seconds" in of else "–"
    kls = " | ".join(_divergence(case, of, f"kl_{text}") for text in TEXTS)
    return f"| {_recipe(case)} | {seconds} | {of['bits_per_weight']:.4g} | {kls} |"


def _bars(case: Case, of: Mapping[str, float]) -> Iterator[str]:
    for bar in case.bars:
        name = f"ratio_to_{bar.against}_{bar.text}"
        if name in of:
            verdict = "met" if of[f"{name}_met"] else "**missed**"
            against = _recipe(CASES[bar.against])
            ratio = _interval(of, name)
            limit = of[f"{name}_bar"]
            across = f" {ACROSS}" if of[f"{name}_low"] <= limit < of[f"{name}_high"] else ""
            yield f"| {_recipe(case)} | {against} | {TEXTS[bar.text]} | {ratio} | ≤ {limit:.3g} | {verdict}{across} |"


def _waited_for() -> tuple[str, ...]:
    own = OWN_TEXT["wanda_50", 16]
    return (
        "What may be waited for on two cores, from 32 windows. Repair after RTN has its default, 64; after Wanda it",
        f"has {own['calibration_windows']}, and {own['own_windows']} that the reference writes: to write them counts.",
    )


def _seconds(case: Case, of: Mapping[str, float]) -> Iterator[str]:
    if case.name in SECONDS and "seconds" in of:
        limit = SECONDS[case.name]
        verdict = "met" if of["seconds"] <= limit else "**missed**"
        yield f"| {_recipe(case)} | {of['seconds']:.3g} | ≤ {limit:.0f} | {verdict} |"


def _unheld(case: Case, of: Mapping[str, float]) -> Iterator[str]:
    for bar in case.bars:
        if f"ratio_to_{bar.against}_{bar.text}" not in of:
            yield f"- {_recipe(case)} against {_recipe(CASES[bar.against])}, {TEXTS[bar.text]}, {bar.words()}"


def _floor_told() -> tuple[str, ...]:
    least, most = FLOOR
    return (
        f"{IN_FLOOR}: a tenth of the number or more may be the noise floor. On a CPU with AMX the demo model has",
        f"{least} to {most} nats against itself in batches of another shape ([verdict](../verdict.md)); here that is",
        "not taken off, and which rows ran on such a CPU is not on record. `extend.identity` keeps the function",
        "exactly: what its row has is rounding alone.",
    )


def _divergence(case: Case, of: Mapping[str, float], name: str) -> str:
    """With its interval, and a mark where the noise floor may be much of it; that of the mixture is not known."""
    marked = case.model == "demo" and MARKED * of[name] <= FLOOR[1]
    return f"{_interval(of, name)}{f' {IN_FLOOR}' if marked else ''}"


def _interval(of: Mapping[str, float], name: str) -> str:
    return f"{of[name]:.3g} [{of[f'{name}_low']:.3g}, {of[f'{name}_high']:.3g}]"


def _recipe(case: Case) -> str:
    """`type:field=value` of each step, as the command line takes it."""
    steps = []
    for step in case.recipe:
        fields = [f"{key}={_value(value)}" for key, value in step.items() if key != "type"]
        steps.append(f"`{step['type']}{':' if fields else ''}{','.join(fields)}`")
    return ", then ".join(steps)


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def update() -> None:
    """Writes the page anew."""
    PAGE.write_text(page(read()), encoding="utf-8")


if __name__ == "__main__":
    update()
