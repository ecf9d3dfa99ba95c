"""How much a step trains: tokens that go forward and backward, and seconds that the request itself allows.

Repair of the demo model on two cores: 86,000 tokens of block by block fitting took 330 s, 61,000 of distillation 310 s
(docs/recipes/repair.md); gradient-aware pruning is taken to be as fast.
"""

from app.contracts.recipe import PruneGradient, QuantizeDynamic, RepairLowrank, Step

# Parameters times tokens, forward and backward.
CPU_TRAINED_PARAMETER_TOKENS_PER_SECOND = 3e10
# Positions of one step of distillation, and of recovery: at least one window.
DISTILL_TOKENS, RECOVERY_TOKENS = 1024, 512


def trained_tokens(step: Step) -> int:
    """Tokens that a step goes forward and backward over, each as often as it does."""
    if isinstance(step, RepairLowrank):
        text = (step.calibration_windows + step.own_windows) * step.calibration_window
        distilled = 0 if step.distill_s else step.distill_steps * max(DISTILL_TOKENS, step.calibration_window)
        return step.block_epochs * text + distilled
    if isinstance(step, PruneGradient):
        text = step.calibration_windows * step.calibration_window
        rebuilt = step.reconstruct_epochs if step.reconstruct else 0
        recovered = 0 if step.recovery_s else (step.recovery_steps or 0) * max(RECOVERY_TOKENS, step.calibration_window)
        return (step.passes + rebuilt) * text + recovered
    if isinstance(step, QuantizeDynamic):
        text = step.calibration_windows * step.calibration_window
        return step.block_epochs * text + step.tuning_steps * step.calibration_window
    return 0


def trained_seconds(step: Step) -> float:
    """Seconds of training that the step itself sets as its limit, however fast the machine is."""
    if isinstance(step, RepairLowrank):
        return step.distill_s or 0.0
    return step.recovery_s if isinstance(step, PruneGradient) else 0.0
