"""docs/recipes/measured.md from tests/bench/mitigation.csv.

Every case of the bench is on the page: those that were measured with their numbers, the others as not measured. A bar
that was missed says so.
"""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from tests.bench.mitigation_cases import CASES, OWN_TEXT, SECONDS, Case

RESULTS = Path(__file__).with_name("mitigation.csv")
PAGE = Path(__file__).parents[2] / "docs" / "recipes" / "measured.md"
TEXTS = {"wiki": "WikiText-2", "unfitted": "other text"}
# Cases that do not change the function: what they show is rounding and noise floor. A divergence is marked if that may
# be so large a share of it.
UNCHANGED, MARKED = ("identity", "width_channels"), 0.1
IN_FLOOR, ACROSS = "‡", "†"
# The row that a case has since versions are kept.
SURGERY = "version_surgery"
HEAD = """# Measured

What each recipe does to the demo model, how large the result is and how long it takes. All tables come from
`tests/bench/mitigation.csv`, which `make bench-mitigation` fills. `make docs` writes this page.

| | |
|---|---|
| model | SmolLM2-135M-Instruct, bf16, on vLLM for CPUs |
| calibration data | articles 1, 3, 5, … of WikiText-2's raw test file, seed 0 |
| windows of it | 32 of 512 tokens (repair: 64), if the recipe names no other number |
| KL | KL(reference‖candidate) in nats per token, with its 95 % interval from documents drawn again |
| *WikiText-2* | the beginnings of 20 other articles of that file |
| *other text* | 24 shipped documents of other kinds; no method is fitted on them |
| seconds | time of a recipe's last step |

**Seconds are upper bounds.** Most rows ran on one core of a shared AVX-512 machine. These ran elsewhere:

| rows | cores | processor |
|---|---|---|
| repair at rank 16 with training, repair after RTN with training | two, unshared | AVX-512 BF16 |
| gradient pruning to one half with recovery | two, unshared | AVX-512 BF16 |
| `lowrank.svd` at a fifth, GPTQ on 128 windows | two, unshared | AVX-512 BF16 |
| repair of removed layers with training, gradient pruning without recovery | part of one | AVX-512 BF16 |
| repair at rank 64 after Wanda with training | part of one | AVX-512 BF16 |
| GPTQ at 4 bits, `quantize.dynamic` on layers alone | two | AVX-512 without BF16 |
| the other rows of `quantize.dynamic`, GPTQ at 3 bits | four fifths of one | AVX-512 without BF16 |

**Three repairs have settings that these numbers chose**: after RTN and of removed layers at rank 64, after Wanda at
rank 16. The defaults missed a bar on these texts. Expect a little less on other texts ([repair](repair.md)).

"""

TABLE = ("| recipe | seconds | bits per weight | KL, WikiText-2 | KL, other text |", "|---|---|---|---|---|")
AGAIN = (
    "A ratio compares two candidates of one run. One of them may have been measured again since, on another processor.",
    "Then the numbers in the first table give a ratio that differs by up to 1.4 %.",
)
BARS = (
    f"A bar is met if the ratio itself is within it. {ACROSS}: the interval crosses the bar, so only the ratio itself",
    "meets or misses it.",
)
VERSIONS = (
    "A version rises when the code gives other weights. The table has the rows whose versions are recorded. Processor",
    "and number of threads are recorded in no row.",
)
MIXTURE = (
    "The demo model is dense. These rows are of a small Mixtral, trained on the same text for 300 steps",
    "(`tests/bench/mixture.py`). It has 3 layers, 64 channels and 4 experts, of which each token takes 2, and a",
    "byte-level vocabulary of 320 tokens. Compare the rows with each other; a large mixture loses other amounts. Its",
    "noise floor was not measured, so no number has a mark.",
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
    lines += ["", "## Bars", "", "Each method has limits: the ratio of two KLs on the same documents.", ""]
    lines += [*BARS, ""]
    lines += [*AGAIN, ""]
    lines += ["A repair must remove on other text two thirds of the share that it removes on WikiText-2.", ""]
    lines += ["| recipe | against | text | ratio | bar | |", "|---|---|---|---|---|---|"]
    lines += [line for case in measured for line in _bars(case, found[case.name])]
    lines += ["", "## Seconds", "", *_waited_for(), ""]
    lines += ["| recipe | seconds | allowed | |", "|---|---|---|---|"]
    lines += [line for case in measured for line in _seconds(case, found[case.name])]
    lines += ["", "## Versions", "", *VERSIONS, "", *_versions(measured, found)]
    if missing or unheld:
        lines += ["", "## Not measured"]
    if missing:
        lines += ["", "These cases have no numbers yet:", ""]
        lines += [f"- {_recipe(case)}" for case in missing]
    if unheld:
        lines += ["", "These bars of measured cases have no ratio yet:", ""]
        lines += unheld
    return HEAD + "\n".join(lines) + "\n"


def _versions(measured: Sequence[Case], found: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """What each row was measured with, if that is recorded."""
    known = [case for case in measured if SURGERY in found[case.name]]
    if known:
        yield from ("| recipe | surgery | steps |", "|---|---|---|")
        yield from (_version(case, found[case.name]) for case in known)
    else:
        yield "No row has a recorded version."


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
        "The most seconds allowed on two cores with 32 windows. Repair after RTN has its default of 64. Repair after",
        f"Wanda has {own['calibration_windows']}, and {own['own_windows']} more that the reference writes; writing "
        "them counts.",
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


@cache
def floor() -> tuple[float, float]:
    """The least and the largest limit of the divergences of UNCHANGED, nats per token."""
    found = read()
    limits = [found[case][f"kl_{text}_{end}"] for case in UNCHANGED for text in TEXTS for end in ("low", "high")]
    return min(limits), max(limits)


def _floor_told() -> tuple[str, ...]:
    least, most = floor()
    return (
        f"{IN_FLOOR}: a tenth of the number or more may be rounding and the [noise floor](../verdict.md). The rows",
        "`extend.identity` and `extend.width` do not change the function. The limits of their intervals go from",
        f"{least:.2g} to {most:.2g} nats. A CPU with AMX has a floor above 0; which rows ran on one is not recorded.",
    )


def _divergence(case: Case, of: Mapping[str, float], name: str) -> str:
    """With its interval, and a mark where the noise floor may be much of it; that of the mixture is not known."""
    marked = case.model == "demo" and MARKED * of[name] <= floor()[1]
    return f"{_interval(of, name)}{f' {IN_FLOOR}' if marked else ''}"


def _interval(of: Mapping[str, float], name: str) -> str:
    return f"{of[name]:.3g} [{of[f'{name}_low']:.3g}, {of[f'{name}_high']:.3g}]"


def _recipe(case: Case) -> str:
    """`type:field=value` of each step, as the command line takes it."""
    steps = []
    for step in case.recipe:
        fields = [f"{key}={_value(value)}" for key, value in step.items() if key != "type"]
        steps.append(f"`{step['type']}{':' if fields else ''}{','.join(fields)}`")
    return ", then ".join(steps) + (f", {case.words}" if case.words else "")


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def update() -> None:
    """Writes the page."""
    PAGE.write_text(page(read()), encoding="utf-8")
