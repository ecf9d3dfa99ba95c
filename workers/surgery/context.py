"""A longer context by other rotary frequencies; no weight changes.

- *Linear*: position interpolation (Chen et al. 2023, arXiv 2306.15595): positions divided by the factor.
- *NTK*: the base raised by factor^(d/(d−2)), so that the lowest frequency is interpolated by the factor and the highest
  is left as it is (bloc97 2023). Static, applied at every length.
- *YaRN* (Peng et al. 2023, arXiv 2309.00071): frequencies that turn less than `beta_slow` times in the original context
  are interpolated. Those
  that turn more than `beta_fast` times are kept, with a ramp between them. Attention is scaled by
  0.1 ln(factor) + 1, squared.

Engines compute the frequencies from config.json. The model is not trained for them: how much that costs within the old
context, and what it gains beyond, is what a comparison measures.
"""

from app.models.steps.context import rope_of, scaled
from app.recipes.context import ContextLinear, ContextNtk, ContextYarn
from workers.surgery.step_run import StepRun


class Scaled:
    """`context.linear`, `context.ntk` and `context.yarn`."""

    version = 1

    def __init__(self, step: ContextLinear | ContextNtk | ContextYarn) -> None:
        self._step = step

    def run(self, context: StepRun) -> None:
        """Writes the configuration."""
        config = scaled(context.source, self._step)
        context.config.clear()
        context.config.update(config)
        context.figures["positions"] = float(config["max_position_embeddings"])
        context.figures["rotary base"] = float(rope_of(config)["rope_theta"])
