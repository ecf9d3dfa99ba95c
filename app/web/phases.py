"""What people read for the name of a phase of a job."""

from typing import Final

_STEPS: Final = {
    "activations": "measuring the activations",
    "adapter": "adding the adapter",
    "bits": "choosing bits per weight",
    "blocks": "going through the blocks",
    "check weights": "checking the weights",
    "dequantize": "dequantizing",
    "distill": "distilling from the reference",
    "divergence gradients": "gradients of the divergence",
    "fisher": "Fisher information",
    "forward": "running the blocks forward",
    "gradients": "gradients",
    "low rank": "low-rank factors",
    "merge": "merging the models",
    "outliers": "counting outliers",
    "own text": "writing text with the reference",
    "prune": "pruning blocks",
    "recovery": "training the weights that stayed",
    "reference": "running the reference",
    "repair": "finding what a repair could add",
    "rounding": "rounding blocks",
    "source": "running the model as it was",
    "tuning": "tuning scales and rounding",
    "tweak": "tweaking norms",
    "widen": "widening tensors",
}
# Of what goes on inside two models.
_INSIDE: Final = {
    "activations": "measuring how errors grow",
    "attention": "comparing where the heads look",
    "candidate": "running the candidate layer by layer",
    "direct effects": "measuring what the change of each layer does past all later ones",
    "final effects": "measuring what later layers make of each change",
    "gaps": "measuring layers without a partner",
    "reference": "running the reference layer by layer",
    "routers of the candidate": "running the routers of the candidate",
    "routers of the reference": "running the routers of the reference",
    "routing": "comparing which experts tokens go to",
    "similarity": "comparing the layers of the two models",
}
PHASES: Final = {
    "queued": "waiting for a worker",
    "text": "reading the text",
    "tokenize": "tokenizing",
    "sample": "sampling from the reference",
    "modify": "modifying the weights",
    "engine": "starting the engine",
    "reference": "scoring the reference",
    "head_check": "checking the head",
    "noise_floor": "measuring the noise floor",
    "kernel_term": "measuring the kernel term",
    "candidate": "scoring the candidate",
    "fit": "fitting the calibrators",
    "choose": "choosing a calibrator",
    "test": "testing what was chosen",
    "diagnose": "finding where the damage sits",
    "restored": "measuring a part that is the reference's again",
    "search": "trying treatments",
    "trial": "measuring a treatment",
    "tasks": "answering the tasks",
    "generate": "generating texts",
    "execute": "running the code that was written",
    "divergence": "comparing the distributions along the texts",
    "shapes": "measuring distances after each shaping of the distributions",
    "points": "measuring the settings",
    "dequantize": "dequantizing the weights",
    "borders": "running both models to every layer border",
    "borders: reference": "running the reference to every layer border",
    "borders: candidate": "running the candidate to every layer border",
    "candidate on the subset": "scoring the candidate on a part of the text",
    "compare weights": "looking for parts that differ",
    "swap layers": "swapping layers",
    "swap parts": "swapping parts",
    "look into parts": "looking into the worst parts",
    "statistics": "computing statistics",
    "report": "writing the report",
    **{f"inside: {phase}": f"looking inside: {words}" for phase, words in _INSIDE.items()},
    # Of the steps of a recipe that take longer than going through the weights once.
    **{f"modify: {phase}": f"modifying the weights: {words}" for phase, words in _STEPS.items()},
}


def in_words(phase: str) -> str:
    """What people read; the phase itself where it has no words here, as that of a newer worker."""
    return PHASES.get(phase, phase)
