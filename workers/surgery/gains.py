"""What a stored norm weight means: Gemma's norms multiply by 1 + weight, the others by the weight."""

from app.models.checkpoint import CheckpointInfo

LESS_ONE = frozenset({"GemmaForCausalLM", "Gemma2ForCausalLM", "Gemma3ForCausalLM"})


def offset_of(info: CheckpointInfo) -> float:
    """What is added to a stored weight to have the gain: 1 for Gemma, else 0."""
    return 1.0 if info.architecture in LESS_ONE else 0.0
