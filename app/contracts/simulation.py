"""What a checkpoint asks of the engine beside its weights: the section `hemostat_simulation` of its config.json.

Weights can be changed on disk; the inputs of linear layers, and keys and values, exist only while the model runs. A
recipe therefore leaves a section in config.json, and an engine that starts for that checkpoint does what it says. By
itself vLLM ignores the section, and so does transformers.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from app.contracts.base import Contract

SECTION = "hemostat_simulation"
Bits = Annotated[int, Field(ge=2, le=8)]
Layer = Annotated[int, Field(ge=0, lt=10000)]


# An even grid, fixed: (scale, zero), value = (code − zero) · scale.
Grid = tuple[Annotated[float, Field(gt=0)], Annotated[int, Field(ge=0, le=255)]]


class SimulatedActivations(Contract):
    """Inputs of linear layers on a grid of 2^bits steps; if `kind` is float, as e4m3 numbers times a scale. There is
    one grid or scale per token (`dynamic`), or one for each of `scales`.

    `modules` are full paths without the weight (`model.layers.0.self_attn.q_proj`). Layers that the engine runs as one
    (q, k and v; gate and up) have one input: they stand in one entry, all of them, with one grid.
    """

    # Left out where it says nothing.
    kind: Literal["int", "float"] = Field(default="int", exclude_if=lambda kind: kind == "int")
    bits: Bits
    dynamic: bool = True
    symmetric: bool = True
    modules: Annotated[tuple[str, ...], Field(min_length=1)]
    scales: dict[str, Grid] | None = Field(default=None, description="module → grid; null where it is dynamic")

    @model_validator(mode="after")
    def _grids(self) -> "SimulatedActivations":
        if self.dynamic != (self.scales is None):
            raise ValueError("give scales exactly where dynamic is false")
        if self.scales is not None and set(self.scales) != set(self.modules):
            raise ValueError("scales must name exactly the modules")
        if self.kind == "float" and (self.bits != 8 or not self.symmetric or self._has_zero_points()):
            raise ValueError("floats have 8 bits, are symmetric and have no zero point")
        return self

    def _has_zero_points(self) -> bool:
        return any(zero for _, zero in (self.scales or {}).values())


class SimulatedKvCache(Contract):
    """Keys (after the rotary embedding) and values as they would be stored. Each token and head has a grid, or each
    `group_size` values of it. Null bits leave them as they are."""

    k_bits: Bits | None = None
    v_bits: Bits | None = None
    group_size: Annotated[int, Field(ge=1, le=65536)] | None = None
    symmetric: bool = False
    layers: Annotated[tuple[Layer, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _something(self) -> "SimulatedKvCache":
        if self.k_bits is None and self.v_bits is None:
            raise ValueError("give k_bits or v_bits")
        return self


class StoredKvCache(Contract):
    """Keys and values in a dtype that the engine itself stores them in."""

    dtype: Literal["fp8", "fp8_e4m3", "fp8_e5m2"]


class Simulation(Contract):
    """The section. A module is in one entry of `activations`; a layer's keys in one of `kv_cache`, and its values.

    `kv_cache` is a dtype, or a list of simulated entries.
    """

    activations: tuple[SimulatedActivations, ...] = ()
    kv_cache: StoredKvCache | tuple[SimulatedKvCache, ...] = ()

    @field_validator("activations", mode="before")
    @classmethod
    def _one_entry(cls, told: Any) -> Any:
        return () if told is None else (told,) if isinstance(told, dict | SimulatedActivations) else told

    @field_validator("kv_cache", mode="before")
    @classmethod
    def _one_cache(cls, told: Any) -> Any:
        if told is None:
            return ()
        return (
            (told,) if isinstance(told, SimulatedKvCache) or (isinstance(told, dict) and "dtype" not in told) else told
        )

    @model_validator(mode="after")
    def _once(self) -> "Simulation":
        modules = [module for entry in self.activations for module in entry.modules]
        if len(set(modules)) < len(modules):
            raise ValueError("a module is in two entries of activations")
        for side in ("k_bits", "v_bits"):
            layers = [
                layer for entry in self.simulated_kv if getattr(entry, side) is not None for layer in entry.layers
            ]
            if len(set(layers)) < len(layers):
                raise ValueError(f"a layer has {side} in two entries of kv_cache")
        return self

    @property
    def simulated_kv(self) -> tuple[SimulatedKvCache, ...]:
        """The simulated entries of `kv_cache`."""
        return self.kv_cache if isinstance(self.kv_cache, tuple) else ()

    @property
    def kv_dtype(self) -> str | None:
        """The dtype that the engine is to store keys and values in; None: its own."""
        return self.kv_cache.dtype if isinstance(self.kv_cache, StoredKvCache) else None

    @property
    def fakes(self) -> bool:
        """Whether anything is simulated beside what the engine's own arguments do."""
        return bool(self.activations or self.simulated_kv)


def simulation_of(config: dict[str, Any]) -> Simulation | None:
    """The section of a config.json; None if it has none. Raises pydantic's `ValidationError` for a damaged one."""
    told = config.get(SECTION)
    return None if told is None else Simulation.model_validate(told)
