"""Phases of jobs of all kinds, by name: what people read, and what a phase counts."""

from typing import Final

from app.kinds.kind import Phase
from app.kinds.registry import KINDS

_STEPS: Final = {
    "activations": "measuring the activations",
    "adapter": "adding the adapter",
    "bits": "choosing bits per weight",
    "blocks": "processing the blocks",
    "dequantize": "dequantizing",
    "distill": "distilling from the reference",
    "divergence gradients": "computing gradients of the divergence",
    "fisher": "computing Fisher information",
    "forward": "running the blocks forward",
    "gradients": "computing gradients",
    "low rank": "computing low-rank factors",
    "merge": "merging the models",
    "outliers": "counting outliers",
    "own text": "generating text with the reference",
    "prune": "pruning blocks",
    "recovery": "training the remaining weights",
    "reference": "running the reference",
    "repair": "computing the repair",
    "rounding": "rounding blocks",
    "source": "running the unmodified model",
    "tweak": "tweaking norms",
    "widen": "widening tensors",
}
COMMON: Final = {
    "queued": Phase("waiting for a worker"),
    "text": Phase("reading the text"),
    "tokenize": Phase("tokenizing", unit="document"),
    "sample": Phase("sampling from the reference", unit="token"),
    "modify": Phase("modifying the weights", unit="tensor"),
    "engine": Phase("starting the engine"),
    "reference": Phase("scoring the reference", unit="window"),
    "head_check": Phase("checking the head"),
    "noise_floor": Phase("measuring the noise floor", unit="window"),
    "kernel_term": Phase("measuring the kernel term", share=True),
    "candidate": Phase("scoring the candidate", unit="window"),
    "test": Phase("testing the chosen recipe or calibrator"),
    "tasks": Phase("answering the tasks"),
    "generate": Phase("generating texts", unit="answer"),
    "execute": Phase("running the code that the models wrote", unit="program"),
    "points": Phase("measuring the settings", unit="setting", steps=100),
    "dequantize": Phase("dequantizing the weights"),
    "statistics": Phase("computing statistics"),
    "report": Phase("writing the report"),
    # Of the steps of a recipe that take longer than going through the weights once.
    **{f"modify: {phase}": Phase(f"modifying: {words}") for phase, words in _STEPS.items()},
}


def all_phases() -> dict[str, Phase]:
    """The phases of every kind."""
    return COMMON | {name: phase for kind in KINDS.values() for name, phase in kind.phases.items()}


def phase_of(name: str, kind: str = "") -> Phase:
    """A phase of a job of this kind; one that is not known, as that of a newer worker, has its name for words."""
    own = KINDS[kind].phases if kind in KINDS else all_phases()
    return own.get(name) or COMMON.get(name) or all_phases().get(name) or Phase(name)


def in_words(phase: str) -> str:
    """What people read for the name of a phase."""
    return phase_of(phase).words
