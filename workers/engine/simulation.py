"""What a checkpoint asks of its engine beside its weights: its section `hemostat_simulation`. Imports neither torch nor
vLLM: how it is done is in `workers.engine.fakes`.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.simulation import SECTION, Simulation
from app.models.simulation import section_in

if TYPE_CHECKING:
    import torch


def section_at(checkpoint: Path) -> Simulation | None:
    """The section of a checkpoint's folder; None without one. Raises what `section_of` raises."""
    return section_of(json.loads((checkpoint / "config.json").read_bytes()))


def section_of(config: dict[str, Any]) -> Simulation | None:
    """The section of a config.json; None without one. Raises CHECKPOINT_CORRUPT, and CHECKPOINT_UNSUPPORTED where the
    packing itself has the engine quantize activations."""
    section = section_in(config)
    if section is not None and section.activations:
        groups = (config.get("quantization_config") or {}).get("config_groups") or {}
        if any(group.get("input_activations") for group in groups.values()):
            raise HemostatError(
                ErrorCode.CHECKPOINT_UNSUPPORTED,
                f"{SECTION} quantizes activations that the packing of the weights quantizes too",
                hint="leave the simulated activations out, or pack weights alone",
            )
    return section


def refuse_compiled(section: Simulation | None, *, compiled: bool) -> None:
    """Raises ENGINE_FAILED: a compiled engine would be compared with an eager one, or have traced the plain model."""
    if section is not None and section.fakes and compiled:
        raise HemostatError(
            ErrorCode.ENGINE_FAILED,
            "activations, keys and values are simulated in eager engines alone",
            hint="unset HEMOSTAT_ENGINE_COMPILE; packed forms run compiled",
        )


def install(model: "torch.nn.Module", section: Simulation) -> None:
    """Has the modules of a vLLM model do what the section says; a second time nothing is done.

    Raises CHECKPOINT_UNSUPPORTED where a module that it names is none of the model's, or is run together with one that
    it does not name, or with another grid.
    """
    from workers.engine import fakes

    if getattr(model, "_hemostat_simulates", False):
        return
    if section.activations:
        fakes.fake_activations(model, section)
    if section.simulated_kv:
        fakes.fake_kv_cache(model, section)
    model._hemostat_simulates = True  # type: ignore[assignment]
