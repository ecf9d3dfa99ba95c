"""Recipes and models in a few words: `4-bit RTN, group 64`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from app.contracts.report import ModelProvenance, Provenance
from app.web import format as fmt

Step = Mapping[str, Any]


def model(provenance: ModelProvenance) -> str:
    """The alias, and what was done to it."""
    done = recipe(provenance.recipe)
    return f"{provenance.model} · {done}" if done else provenance.model


def engine(source: Provenance) -> list[str]:
    """What ran the models: engine, execution where the report tells it, device, dtype."""
    return [part for part in (source.engine, source.execution, source.device, source.dtype) if part is not None]


def recipe(steps: Sequence[Step]) -> str:
    """All steps in the order in which they were applied; empty where there is none."""
    return ", then ".join(map(step, steps))


def with_knobs(steps: Sequence[Step], knobs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The steps with the values of each knob where a request writes them: `{"sweep": [...]}`."""
    turned = [dict(one) for one in steps]
    for knob in knobs:
        if knob["step"] < len(turned):
            turned[knob["step"]][knob["field"]] = {"sweep": list(knob["values"])}
    return turned


def step(of: Step) -> str:
    """One step. A type that is not known here is named with its parameters, so that nothing is hidden."""
    kind = str(of.get("type", "unknown step"))
    swept = {name: value["sweep"] for name, value in of.items() if isinstance(value, dict) and "sweep" in value}
    if swept:
        return f"{kind} with {' and '.join(_turned(name, values) for name, values in swept.items())}{_where(of)}"
    words = _WORDS.get(kind, _any_step)(of)
    return words if kind in _TELLS_LAYERS else words + _where(of)


def _turned(name: str, values: Any) -> str:
    """A knob over its values: `bits from 8 to 2 (7 values)`."""
    if not isinstance(values, list) or not values:
        return f"{name} turned"
    ends = values[0], values[-1]
    if all(isinstance(value, int | float) for value in values):
        ends = (min(values), max(values)) if ends[0] <= ends[1] else (max(values), min(values))
    first, last = (json.dumps(value, ensure_ascii=False).strip('"') for value in ends)
    return f"{name} from {first} to {last} ({len(values)} values)"


def _gridded(method: str) -> Callable[[Step], str]:
    def told(of: Step) -> str:
        group = of.get("group_size", 64)
        scales = "per channel" if group is None else f"group {group}"
        grid = "symmetric" if of.get("symmetric") else "asymmetric"
        return f"{of.get('bits')}-bit {method}, {scales}, {grid}{_form(of)}"

    return told


def _form(of: Step) -> str:
    return ", packed" if of.get("form") == "packed" else ""


def _smoothquant(of: Step) -> str:
    when = "dynamic" if of.get("dynamic", True) else "static"
    widths = f"W{of.get('bits', 8)}A{of.get('activation_bits', 8)}"
    return f"SmoothQuant {widths}, {when}, strength {fmt.number(float(of.get('strength', 0.5)))}{_form(of)}"


def _fp8(of: Step) -> str:
    activations = of.get("activations", "none")
    inputs = "" if activations == "none" else f", {activations} activations"
    return f"FP8 weights{inputs}{_form(of)}"


def _nf4(of: Step) -> str:
    group = of.get("group_size", 64)
    return f"NF4, {'per channel' if group is None else f'group {group}'}"


def _magnitude(of: Step) -> str:
    return _sparse(of, "magnitude", "layer")


def _sparse(of: Step, method: str, scope: str) -> str:
    owl = ", OWL" if of.get("allocation") == "owl" else ""
    if of.get("pattern"):
        return f"{method} pruning {of['pattern']}" + (f" on average{owl}" if owl else "")
    share = f"{method} pruning {_share(of.get('sparsity'))} per {of.get('scope', scope)}"
    return share.replace("per global", "over all weights") + owl


def _gradient(of: Step) -> str:
    words = f"gradient-aware pruning {of.get('pattern') or _share(of.get('sparsity'))}"
    if of.get("recovery_steps"):
        return f"{words}, {of['recovery_steps']} steps of recovery"
    return f"{words}, {fmt.number(float(of['recovery_s']))} s of recovery" if of.get("recovery_s") else words


def _share(of: object) -> str:
    return f"{fmt.number(100 * float(of))} %" if isinstance(of, int | float) else str(of)


def _parts(of: Step, part: str, where: str) -> str:
    if of.get("count") is None and of.get("ratio") is None:
        return f"{_layers(of) if part == 'layer' and _has_layers(of) else f'{part}s'} dropped"
    many = f"{of['count']} {part}" if of.get("count") is not None else f"{_share(of.get('ratio'))} of the {part}"
    return f"{many}{'' if of.get('count') == 1 else 's'} dropped{where}"


# Fields that hardly ever differ, and would hide what does.
_QUIET = frozenset({"type", "layers", "modules", "calibration", "calibration_windows", "calibration_window", "seed"})
# Types whose words say which layers.
_TELLS_LAYERS = frozenset({"extend.duplicate", "extend.identity", "extend.interpolate", "prune.layers"})


def _any_step(of: Step) -> str:
    rest = [
        f"{key} {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for key, value in of.items()
        if key not in _QUIET and value is not None
    ]
    return " ".join([str(of.get("type", "unknown step")), ", ".join(rest)]).strip()


def _dynamic(of: Step) -> str:
    group = of.get("group_size", 64)
    inputs = f"A{of['activation_bits']}" if of.get("activation_bits") else ""
    widths = f"{float(of.get('bits', 4)):g}-bit" + (" on average, mixed," if of.get("mixed") else "")
    scales = "per channel" if group is None else f"group {group}"
    epochs = of.get("block_epochs", 3)
    fitted = f", blocks fitted over {fmt.counted(epochs, 'epoch')}" if epochs else ""
    form = ", packed" if of.get("form") == "packed" else ""
    return f"{widths} dynamic scaling{f' {inputs}' if inputs else ''}, {scales}{fitted}{form}"


def _repair(of: Step) -> str:
    epochs, steps = of.get("block_epochs", 3), of.get("distill_steps", 60)
    fitted = [f"blocks fitted over {fmt.counted(epochs, 'epoch')}"] if epochs else []
    trained = [f"{steps} steps of distillation"] if steps else []
    own = [f"{fmt.counted(of['own_windows'], 'window')} of the reference's own text"] if of.get("own_windows") else []
    how = ", ".join([*own, *fitted, *trained]) or "closed form alone"
    return f"low-rank repair, mean rank {of.get('rank')}, {how}"


def _cut(method: str) -> Callable[[Step], str]:
    def words(of: Step) -> str:
        rank = f"rank {of['rank']}" if of.get("rank") else f"{fmt.number(100 * float(of.get('ratio') or 0))} % smaller"
        return f"{method}, {rank}"

    return words


def _deeper(of: Step) -> str:
    layers = _layers(of) if _has_layers(of) else "every layer"
    how = {"duplicate": "repeated", "identity": "followed by identities", "interpolate": "followed by interpolations"}
    return f"{layers} {how[str(of['type']).partition('.')[2]]}"


def _wider(of: Step) -> str:
    parts = [f"{name} × {of[name]}" for name in ("heads", "channels") if of.get(name, 1) != 1]
    noise = f", noise {of['noise']:g}" if of.get("noise") else ""
    return f"wider: {', '.join(parts)}{noise}"


def _context(of: Step) -> str:
    names = {"linear": "linear", "ntk": "NTK", "yarn": "YaRN"}
    return f"context × {float(of.get('factor', 1)):g} ({names[str(of['type']).partition('.')[2]]})"


def _router(of: Step) -> str:
    for name, word in (("temperature", "temperature {:g}"), ("noise", "noise {:g}"), ("bits", "{} bits")):
        if of.get(name) is not None:
            return "router " + word.format(of[name])
    return "router"


def _merged(of: Step) -> str:
    if of.get("type") == "merge.linear":
        return f"merged with {of.get('other')} ({of.get('weight', 0.5):g})"
    strength = of.get("strength", 1.0)
    return "LoRA merged" + ("" if strength == 1 else f", strength {strength:g}")


def _activations(of: Step) -> str:
    when = "a grid a token" if of.get("dynamic", True) else "fixed grids"
    return f"{of.get('bits')}-bit activations, {when}, {'symmetric' if of.get('symmetric', True) else 'asymmetric'}"


def _kv_cache(of: Step) -> str:
    if of.get("dtype"):
        return f"{of['dtype']} keys and values"
    sides = [
        f"{of[f'{side}_bits']}-bit {name}" for side, name in (("k", "keys"), ("v", "values")) if of.get(f"{side}_bits")
    ]
    group = f", group {of['group_size']}" if of.get("group_size") else ""
    return f"{' and '.join(sides)}{group}"


def _scaled_norms(of: Step) -> str:
    shift = of.get("shift", 0)
    return f"norms × {of.get('factor', 1):g}" + (f" {'+' if shift > 0 else '−'} {abs(shift):g}" if shift else "")


_RUNTIME = {"quantize.activations": _activations, "quantize.kv_cache": _kv_cache}
_NORMS = {
    "norm.scale": _scaled_norms,
    "norm.epsilon": lambda of: f"norm epsilon {of.get('epsilon', 0):g}",
    "norm.drop": lambda of: "norms without weights",
    "norm.tweak": lambda of: f"norm tweaking, {of.get('steps', 20)} steps a block",
}
_PRUNING = {
    "prune.wanda": lambda of: _sparse(of, "Wanda", "row"),
    "prune.sparsegpt": lambda of: _sparse(of, "SparseGPT", "layer"),
    "prune.ria": lambda of: _sparse(of, "RIA", "row"),
    "prune.layers": lambda of: _parts(of, "layer", ""),
    "prune.heads": lambda of: _parts(of, "attention head", " in every layer"),
    "prune.channels": lambda of: _parts(of, "MLP channel", " in every layer"),
}
_WORDS = {
    "lowrank.svd": _cut("SVD"),
    "lowrank.asvd": _cut("ASVD"),
    "lowrank.svdllm": _cut("SVD-LLM"),
    "extend.duplicate": _deeper,
    "extend.identity": _deeper,
    "extend.interpolate": _deeper,
    "extend.width": _wider,
    "context.linear": _context,
    "context.ntk": _context,
    "context.yarn": _context,
    "moe.topk": lambda of: f"{of.get('experts')} expert{'' if of.get('experts') == 1 else 's'} a token",
    "moe.router": _router,
    "adapter.lora": _merged,
    "merge.linear": _merged,
    "quantize.rtn": _gridded("RTN"),
    "quantize.gptq": _gridded("GPTQ"),
    "quantize.awq": _gridded("AWQ"),
    "quantize.smoothquant": _smoothquant,
    "quantize.fp8": _fp8,
    "quantize.nf4": _nf4,
    "quantize.dynamic": _dynamic,
    "prune.magnitude": _magnitude,
    **_PRUNING,
    **_RUNTIME,
    **_NORMS,
    "decode.temperature": lambda of: f"temperature {float(of.get('temperature', 1)):g}",
    "prune.gradient": _gradient,
    "repair.lowrank": _repair,
}


def _where(of: Step) -> str:
    parts = []
    if _has_layers(of):
        parts.append(_layers(of))
    if isinstance(of.get("modules"), list | tuple) and of["modules"]:
        parts.append(", ".join(map(str, of["modules"])))
    return f" (only {'; '.join(parts)})" if parts else ""


def _has_layers(of: Step) -> bool:
    return isinstance(of.get("layers"), list | tuple) and bool(of["layers"])


def _layers(of: Step) -> str:
    """`layer 12`, `layers 0–2, 7`."""
    return f"layer{'' if len(of['layers']) == 1 else 's'} {_ranges(sorted(of['layers']))}"


def _ranges(numbers: Sequence[int]) -> str:
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs)
