"""What a checkpoint asks of its engine beside its weights: its section `hemostat_simulation` and those of
`app.contracts.blocks`.

Imports neither torch nor vLLM: how it is done is in `workers.engine.fakes`, `workers.engine.blocks` and
`workers.engine.repair`.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.contracts import blocks
from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.simulation import SECTION, Simulation
from app.models.simulation import section_in

if TYPE_CHECKING:
    import torch


def section_at(checkpoint: Path) -> Simulation | None:
    """The section of a checkpoint's folder; None without one. Raises what `section_of` raises."""
    return section_of(json.loads((checkpoint / "config.json").read_bytes()))


def section_of(config: dict[str, Any]) -> Simulation | None:
    """The section of a config.json; None without one. Raises CHECKPOINT_CORRUPT, and CHECKPOINT_UNSUPPORTED if the
    packing itself has the engine quantize activations."""
    section = section_in(config)
    if section is not None and section.activations:
        groups = (config.get("quantization_config") or {}).get("config_groups") or {}
        if any(group.get("input_activations") for group in groups.values()):
            raise HemostatError(
                ErrorCode.CHECKPOINT_UNSUPPORTED,
                f"{SECTION} quantizes activations that the packing of the weights quantizes too",
                hint="leave the simulated activations out, or pack only weights",
            )
    return section


def needs_hooks(config: dict[str, Any]) -> bool:
    """Whether plain vLLM would run something else than the checkpoint of this config.json."""
    beside = (blocks.blocks_in(config), blocks.repair_in(config))
    return needs_eager(config) or any(section is not None for section in beside)


def needs_eager(config: dict[str, Any]) -> bool:
    """Whether a compiled engine would not do what the checkpoint of this config.json asks for."""
    section = section_of(config)
    return section is not None and section.fakes


def refuse_compiled(config: dict[str, Any], *, compiled: bool) -> None:
    """Raises ENGINE_FAILED: a compiled engine that scores has traced the plain model before it learns of more."""
    if compiled and needs_hooks(config):
        raise HemostatError(
            ErrorCode.ENGINE_FAILED,
            "only eager scoring engines can simulate activations, keys and values, correct blocks, and serve a repair",
            hint="unset HEMOSTAT_ENGINE_COMPILE; packed forms run compiled",
        )


def install(model: "torch.nn.Module", checkpoint: Path) -> None:
    """Has the modules of a vLLM model do what the checkpoint's sections say; a second time nothing is done.

    Raises CHECKPOINT_UNSUPPORTED if a module that it names is none of the model's, or runs together with one that it
    does not name, or with another grid. Raises what `workers.engine.blocks.read` and `workers.engine.repair.install`
    raise.
    """
    from workers.engine import blocks as stream
    from workers.engine import fakes, repair

    if getattr(model, "_hemostat_simulates", False):
        return
    section = section_at(checkpoint)
    if section is not None and section.activations:
        fakes.fake_activations(model, section)
    if section is not None and section.simulated_kv:
        fakes.fake_kv_cache(model, section)
    repair.install(model, checkpoint)
    corrections = stream.read(checkpoint, next(model.parameters()).device)
    if corrections is not None:
        stream.correct_always(model, "hemostat_own", corrections)
    model._hemostat_simulates = True  # type: ignore[assignment]
