"""The cases of `make bench-mitigation`, and the bars that they are held to.

A bar says that a case's KL is at most so many times that of the case it is held `against`, on `text`: `wiki` is the
domain that was fitted (other articles), `unfitted` another one.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from zlib import crc32

from pydantic import TypeAdapter

from app.models.recipes import canonical_json
from app.recipes.prune import PruneGradient
from app.recipes.recipe import Recipe

_RECIPE: TypeAdapter[Recipe] = TypeAdapter(Recipe)
Text = Literal["wiki", "unfitted"]
# The demo model, which is dense, or a small mixture of experts (`tests.bench.mixture`).
Model = Literal["demo", "mixture"]


@dataclass(frozen=True)
class Bar:
    """KL(case) ≤ most · KL(against); with `of_gain`, of what is removed on `wiki` at least that share is removed."""

    against: str
    most: float = 1.0
    text: Text = "wiki"
    of_gain: float | None = None

    def limit(self, fitted: float) -> float:
        """The ratio that is allowed where the one on `wiki` is `fitted`."""
        return self.most if self.of_gain is None else 1 - self.of_gain * (1 - fitted)

    def words(self) -> str:
        """The bar for people, whatever was measured."""
        if self.of_gain is None:
            return f"≤ {self.most:.3g}"
        return f"{100 * self.of_gain:.0f} % of what is removed on WikiText-2"


@dataclass(frozen=True)
class Case:
    """A recipe and its bars.

    `beside`: recipes of the same model whose results the steps take, by the name that they go by there: an
    `adapter.lora` takes the adapter that a repair leaves, a `merge.linear` the checkpoint.
    `ablation`: what the only step is instead, and `words` what that leaves out.
    """

    name: str
    recipe: tuple[dict[str, Any], ...]
    bars: tuple[Bar, ...] = ()
    beside: Mapping[str, tuple[dict[str, Any], ...]] = field(default_factory=dict)
    model: Model = "demo"
    ablation: type[PruneGradient] | None = None
    words: str = ""

    @property
    def against(self) -> tuple[str, ...]:
        """Cases that must be measured before."""
        return tuple(dict.fromkeys(bar.against for bar in self.bars))

    @property
    def mark(self) -> int:
        """Six digits, as many as a row keeps, that change with the recipe and with the defaults of its steps: numbers
        are of what they were measured with, whatever a case's recipe has become."""
        recipes = [self.recipe, *(self.beside[name] for name in sorted(self.beside))]
        told = [canonical_json(_RECIPE.validate_python(recipe)) for recipe in recipes]
        named = [told, sorted(self.beside), *([self.ablation.runner] if self.ablation else [])]
        return crc32(json.dumps(named).encode()) % 10**6


# Seconds that making a checkpoint may take on two cores, from 32 windows of 512 tokens; for repair at rank 16 from
# those of its case: 64 by default after RTN, those of `OWN_TEXT` after Wanda.
SECONDS: Final[dict[str, float]] = {
    **dict.fromkeys(("rtn_4", "magnitude_50", "fp8", "nf4", "svd_20"), 10),
    **dict.fromkeys(("wanda_50", "ria_50", "smoothquant_8", "asvd_20", "svdllm_20"), 90),
    **dict.fromkeys(("gptq_4", "sparsegpt_50"), 150),
    "awq_4": 400,
    **dict.fromkeys(("repair_rtn_4_r16", "repair_wanda_50_r16"), 900),
}
LONG = {"calibration_windows": 128, "calibration_window": 512}


def _one(name: str, step: dict[str, Any], *bars: Bar) -> Case:
    return Case(name, (step,), bars)


def _pruning() -> list[Case]:
    half = {"sparsity": 0.5}
    cases = [
        _one("magnitude_50", {"type": "prune.magnitude", **half}),
        _one("wanda_50", {"type": "prune.wanda", **half}),
        _one("ria_50", {"type": "prune.ria", **half}),
        _one("sparsegpt_50", {"type": "prune.sparsegpt", **half}),
        _one("wanda_owl_50", {"type": "prune.wanda", "allocation": "owl", **half}),
        _one("magnitude_2:4", {"type": "prune.magnitude", "pattern": "2:4"}),
        _one("wanda_2:4", {"type": "prune.wanda", "pattern": "2:4"}),
        _one("wanda_4:8", {"type": "prune.wanda", "pattern": "4:8"}),
        _one("sparsegpt_2:4", {"type": "prune.sparsegpt", "pattern": "2:4"}),
        # the known order, on 128 windows
        _one("wanda_50_128", {"type": "prune.wanda", **half, **LONG}, Bar("magnitude_50", 1.0)),
        _one("sparsegpt_50_128", {"type": "prune.sparsegpt", **half, **LONG}, Bar("wanda_50_128", 1.0)),
        _one("layers_14_15", {"type": "prune.layers", "layers": [14, 15]}),
        _one("channels_10", {"type": "prune.channels", "ratio": 0.1}),
        _one("magnitude_row_50", {"type": "prune.magnitude", "scope": "row", **half}),
        _one("magnitude_owl_50", {"type": "prune.magnitude", "allocation": "owl", **half}),
        _one("ria_owl_50", {"type": "prune.ria", "allocation": "owl", **half}),
        # with the default range every layer of the demo model rounds to 4:8
        _one("wanda_owl_4:8", {"type": "prune.wanda", "allocation": "owl", "pattern": "4:8", "owl_range": 0.25}),
        _one("sparsegpt_owl_50", {"type": "prune.sparsegpt", "allocation": "owl", **half}),
        _one("ria_2:4", {"type": "prune.ria", "pattern": "2:4"}),
        _one("layers_2", {"type": "prune.layers", "count": 2}),
        _one("heads_3", {"type": "prune.heads", "count": 3}),
    ]
    for name, strength in (("50", half), ("2:4", {"pattern": "2:4"})):
        gradient = {"type": "prune.gradient", **strength}
        wanda, sparsegpt = f"wanda_{name}", f"sparsegpt_{name}"
        cases += [
            _one(
                f"gradient_{name}",
                gradient,
                Bar(wanda, 0.8),
                Bar(sparsegpt, 1.0),
                Bar(wanda, 1.0, "unfitted"),
            ),
            _one(
                f"gradient_{name}_recovery",
                {**gradient, "recovery_s": 600},
                Bar(wanda, 0.6),
                Bar(wanda, 1.0, "unfitted"),
            ),
        ]
    return cases


class PruneByInputs(PruneGradient):
    """`prune.gradient` that chooses weights without gradients."""

    runner = "tests.bench.ablation:ByInputs"


def _ablations() -> list[Case]:
    """What choosing by gradients gains: the same zeros per module and the same training of the rest, without it."""
    step = {"type": "prune.gradient", "sparsity": 0.5, "budget": "uniform", "passes": 1, "calibration_windows": 16}
    name = "gradient_50_uniform"
    without = Case(f"{name}_by_inputs", (step,), ablation=PruneByInputs, words="chosen by E[x²]")
    return [without, _one(name, step, Bar(without.name), Bar(without.name, text="unfitted"))]


def _quantization() -> list[Case]:
    w4a8 = ({"type": "quantize.rtn", "bits": 4}, {"type": "quantize.activations", "bits": 8})
    return [
        _one("rtn_4", {"type": "quantize.rtn", "bits": 4}),
        _one("rtn_3", {"type": "quantize.rtn", "bits": 3}),
        _one("rtn_8", {"type": "quantize.rtn", "bits": 8}),
        _one("nf4", {"type": "quantize.nf4"}),
        _one("fp8", {"type": "quantize.fp8"}),
        _one("gptq_4", {"type": "quantize.gptq", "bits": 4}),
        _one("gptq_3", {"type": "quantize.gptq", "bits": 3}),
        _one("awq_4", {"type": "quantize.awq", "bits": 4}),
        _one("gptq_4_128", {"type": "quantize.gptq", "bits": 4, **LONG}, Bar("rtn_4", 1.0)),
        _one("smoothquant_8", {"type": "quantize.smoothquant"}),
        Case("rtn_4_a8", w4a8),
        _one("rtn_4_packed", {"type": "quantize.rtn", "bits": 4, "form": "packed"}),
        _one("gptq_4_packed", {"type": "quantize.gptq", "bits": 4, "form": "packed"}),
        _one("smoothquant_8_packed", {"type": "quantize.smoothquant", "form": "packed"}),
        _one("fp8_dynamic", {"type": "quantize.fp8", "activations": "dynamic"}),
        _one("fp8_packed", {"type": "quantize.fp8", "activations": "dynamic", "form": "packed"}),
        _one(
            "dynamic_4",
            {"type": "quantize.dynamic", "bits": 4},
            Bar("rtn_4", 0.5),
            Bar("gptq_4", 1.0),
            Bar("awq_4", 1.0),
            Bar("dynamic_4_layers", 1.0),
            Bar("rtn_4", 1.0, "unfitted"),
        ),
        _one(
            "dynamic_4_layers",
            {"type": "quantize.dynamic", "bits": 4, "block_epochs": 0},
            Bar("rtn_4", 0.5),
            Bar("gptq_4", 1.0),
            Bar("awq_4", 1.0),
        ),
        _one(
            "dynamic_4_mixed",
            {"type": "quantize.dynamic", "bits": 4, "mixed": True, "block_epochs": 0},
            Bar("rtn_4", 0.5),
            Bar("dynamic_4_layers", 1.0),
        ),
        _one("dynamic_3", {"type": "quantize.dynamic", "bits": 3}, Bar("gptq_3", 1.0), Bar("rtn_3", 1.0, "unfitted")),
        _one(
            "dynamic_w8a8",
            {"type": "quantize.dynamic", "bits": 8, "group_size": None, "symmetric": True, "activation_bits": 8},
            Bar("smoothquant_8", 1.0),
        ),
        _one("dynamic_w4a8", {"type": "quantize.dynamic", "bits": 4, "activation_bits": 8}, Bar("rtn_4_a8", 0.6)),
    ]


# What the defaults do not reach at rank 64: weights quantized anew, of what the repair does not carry, and more text.
THOROUGH = {"iterations": 10, "calibration_windows": 288, "block_epochs": 2, "distill_steps": 60}
# Where text that was not fitted kept less than two thirds of the gain: some windows are the reference's own text.
OWN_TEXT: Final[dict[tuple[str, int], dict[str, int]]] = {
    ("wanda_50", 16): {"calibration_windows": 44, "own_windows": 16},
    ("layers_14_15", 64): {"calibration_windows": 32, "own_windows": 32},
}


def _repair() -> list[Case]:
    wounds: dict[str, tuple[dict[str, Any], dict[int, float]]] = {
        "rtn_4": ({"type": "quantize.rtn", "bits": 4}, {16: 0.80, 64: 0.92}),
        "wanda_50": ({"type": "prune.wanda", "sparsity": 0.5}, {16: 0.30, 64: 0.55}),
        "layers_14_15": ({"type": "prune.layers", "layers": [14, 15]}, {64: 0.40}),
    }
    cases = []
    for wound, (step, removed) in wounds.items():
        for rank, share in removed.items():
            plain: dict[str, Any] = {"type": "repair.lowrank", "rank": rank}
            repair = plain | OWN_TEXT.get((wound, rank), {})
            if (wound, rank) == ("rtn_4", 64):
                repair |= THOROUGH
            # two thirds of the gain remain on a domain that was not fitted
            bars = (Bar(wound, 1 - share), Bar(wound, text="unfitted", of_gain=2 / 3))
            cases.append(Case(f"repair_{wound}_r{rank}", (step, repair), bars))
            closed = {**plain, "block_epochs": 0, "distill_steps": 0}
            cases.append(Case(f"repair_{wound}_r{rank}_closed", (step, closed), (Bar(wound, 1.0),)))
    return cases


def _others() -> list[Case]:
    return [
        _one("svd_20", {"type": "lowrank.svd", "ratio": 0.2}),
        _one("asvd_20", {"type": "lowrank.asvd", "ratio": 0.2}, Bar("svd_20", 1.0)),
        _one("svdllm_20", {"type": "lowrank.svdllm", "ratio": 0.2}, Bar("asvd_20", 1.0)),
        _one("svd_5", {"type": "lowrank.svd", "ratio": 0.05}),
        _one("svdllm_5", {"type": "lowrank.svdllm", "ratio": 0.05}),
        _one("svdllm_40", {"type": "lowrank.svdllm", "ratio": 0.4}),
        _one("duplicate_8_15", {"type": "extend.duplicate", "layers": list(range(8, 16))}),
        _one("identity", {"type": "extend.identity"}),
        _one("interpolate", {"type": "extend.interpolate", "layers": [14]}),
        _one("width_channels", {"type": "extend.width", "channels": 2}),
        _one("context_linear_4", {"type": "context.linear", "factor": 4}),
        _one("context_ntk_4", {"type": "context.ntk", "factor": 4}),
        _one("context_yarn_4", {"type": "context.yarn", "factor": 4}),
        _one("norm_epsilon", {"type": "norm.epsilon", "epsilon": 0.01}),
        _one("norm_scale", {"type": "norm.scale", "factor": 1.1}),
        _one("norm_drop", {"type": "norm.drop"}),
        _one("temperature_07", {"type": "decode.temperature", "temperature": 0.7}),
        _one("temperature_15", {"type": "decode.temperature", "temperature": 1.5}),
        Case("rtn_4_then_tweak", ({"type": "quantize.rtn", "bits": 4}, {"type": "norm.tweak"})),
        _one("kv_8", {"type": "quantize.kv_cache", "k_bits": 8, "v_bits": 8}),
        _one("kv_4", {"type": "quantize.kv_cache", "k_bits": 4, "v_bits": 4}),
        _one("kv_fp8", {"type": "quantize.kv_cache", "dtype": "fp8"}),
        _one("activations_8", {"type": "quantize.activations", "bits": 8}),
        _one("activations_8_static", {"type": "quantize.activations", "bits": 8, "dynamic": False}),
        _one("activations_4", {"type": "quantize.activations", "bits": 4}),
        _one("activations_4_asymmetric", {"type": "quantize.activations", "bits": 4, "symmetric": False}),
        _one("wanda_30", {"type": "prune.wanda", "sparsity": 0.3}),
        Case(
            "rtn_4_then_wanda_30",
            ({"type": "quantize.rtn", "bits": 4}, {"type": "prune.wanda", "sparsity": 0.3}),
        ),
        # the weaker of two changes first, as it is published
        Case(
            "wanda_30_then_rtn_4",
            ({"type": "prune.wanda", "sparsity": 0.3}, {"type": "quantize.rtn", "bits": 4}),
            (Bar("rtn_4_then_wanda_30", 1.0),),
        ),
    ]


def _beside() -> list[Case]:
    """What takes a result of another recipe."""
    rtn = {"type": "quantize.rtn", "bits": 4}
    closed = {"type": "repair.lowrank", "rank": 16, "block_epochs": 0, "distill_steps": 0}
    wanda = {"type": "prune.wanda", "sparsity": 0.5}
    return [
        Case(
            "rtn_4_then_adapter", (rtn, {"type": "adapter.lora", "adapter": "repair"}), beside={"repair": (rtn, closed)}
        ),
        Case("merge_with_wanda_50", ({"type": "merge.linear", "other": "wanda_50"},), beside={"wanda_50": (wanda,)}),
    ]


def _mixture() -> list[Case]:
    steps: dict[str, dict[str, Any]] = {
        "moe_topk_1": {"type": "moe.topk", "experts": 1},
        "moe_topk_4": {"type": "moe.topk", "experts": 4},
        "moe_temperature": {"type": "moe.router", "temperature": 2.0},
        "moe_noise": {"type": "moe.router", "noise": 0.1},
        "moe_router_4": {"type": "moe.router", "bits": 4},
    }
    return [Case(name, (step,), model="mixture") for name, step in steps.items()]


CASES: dict[str, Case] = {
    case.name: case
    for case in (
        *_quantization(),
        *_pruning(),
        *_ablations(),
        *_repair(),
        *_others(),
        *_beside(),
        *_mixture(),
    )
}
