"""The section `hemostat_simulation` as recipes put it together: a later step takes over what it names."""

from typing import Any

from pydantic import ValidationError

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.simulation import (
    SECTION,
    SimulatedActivations,
    SimulatedKvCache,
    Simulation,
    StoredKvCache,
    simulation_of,
)


def section_in(config: dict[str, Any]) -> Simulation | None:
    """The section of a config.json; None without one. Raises CHECKPOINT_CORRUPT for a damaged one."""
    try:
        return simulation_of(config)
    except ValidationError as error:
        raise HemostatError(
            ErrorCode.CHECKPOINT_CORRUPT,
            f"config.json: {SECTION} is not valid: {error.errors()[0]['msg']}",
            hint="apply the recipe again",
        ) from error


def with_activations(config: dict[str, Any], entry: SimulatedActivations) -> dict[str, Any]:
    """The configuration with `entry`; modules that an earlier entry named are its own now."""
    known = section_in(config) or Simulation()
    taken = set(entry.modules)
    kept = []
    for other in known.activations:
        modules = tuple(module for module in other.modules if module not in taken)
        if modules:
            scales = None if other.scales is None else {module: other.scales[module] for module in modules}
            kept.append(other.model_copy(update={"modules": modules, "scales": scales}))
    return _with(config, known.model_copy(update={"activations": (*kept, entry)}))


def with_kv_cache(config: dict[str, Any], entry: SimulatedKvCache | StoredKvCache) -> dict[str, Any]:
    """The configuration with `entry`; keys (values) of layers that an earlier entry quantized are its own now."""
    known = section_in(config) or Simulation()
    if isinstance(entry, StoredKvCache):
        return _with(config, known.model_copy(update={"kv_cache": entry}))
    kept: list[SimulatedKvCache] = []
    for other in known.simulated_kv:
        inside = tuple(layer for layer in other.layers if layer in set(entry.layers))
        outside = tuple(layer for layer in other.layers if layer not in set(entry.layers))
        if outside:
            kept.append(other.model_copy(update={"layers": outside}))
        k_bits = other.k_bits if entry.k_bits is None else None
        v_bits = other.v_bits if entry.v_bits is None else None
        if inside and (k_bits is not None or v_bits is not None):
            kept.append(other.model_copy(update={"layers": inside, "k_bits": k_bits, "v_bits": v_bits}))
    return _with(config, known.model_copy(update={"kv_cache": (*kept, entry)}))


def _with(config: dict[str, Any], section: Simulation) -> dict[str, Any]:
    checked = Simulation.model_validate(section.model_dump())
    return {**config, SECTION: checked.model_dump(mode="json")}
