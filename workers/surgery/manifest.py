"""What a modification did, tensor by tensor."""

from math import ceil

from pydantic import Field

from app.contracts.base import Contract
from app.contracts.notice import Notice

MANIFEST = "manifest.json"


class TensorChange(Contract):
    """One weight matrix that a step addressed.

    `bits_per_weight` is what the weight takes packed (codes, 16-bit scales, zero points), or, where it is simulated,
    would take; `nominal_bytes` follows from it. Pruning lowers neither: sparsity is reported apart, because few kernels
    store zeros for nothing.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    steps: tuple[int, ...] = Field(description="indices of the recipe's steps that changed it")
    bits_per_weight: float
    nominal_bytes: int
    nominal_sparsity: float | None = Field(description="share of zeros that the last pruning step asked for")
    zeros: int = Field(description="weights that are exactly 0 now")
    reconstruction_error: float | None = Field(
        description="‖W − W'‖ / ‖W‖, Frobenius, W being the unmodified model's; null where it has none of that shape"
    )
    original_norm: float | None = Field(default=None, description="‖W‖ of the unmodified model's weight")
    in_parts: bool = Field(default=False, description="whether it counts as two factors, or with an adapter beside it")

    @property
    def elements(self) -> int:
        """How many weights it has."""
        count = 1
        for size in self.shape:
            count *= size
        return count

    @property
    def sparsity(self) -> float:
        """Share of its weights that are exactly 0."""
        return self.zeros / self.elements


class StepRecord(Contract):
    """How one step, or a run of neighbouring steps that went through the weights together, was done."""

    steps: tuple[int, ...] = Field(description="indices of the recipe's steps")
    types: tuple[str, ...]
    seconds: float
    calibration_fingerprint: str | None = None
    calibration_documents: int | None = None
    calibration_tokens: int | None = None
    warnings: tuple[Notice, ...] = ()
    figures: dict[str, float] = Field(default_factory=dict, description="what the step has to tell, by name and unit")


class Manifest(Contract):
    """What was made of which source, and how far it is from it.

    Its numbers are over all `tensors`, which are the matrices that the recipe addressed; `model_*` are over the whole
    model.
    """

    key: str = Field(description="names the result in the store; empty where nothing was made")
    source_fingerprint: str
    fingerprint: str = Field(description="of the result's configuration and weights")
    recipe: tuple[dict[str, object], ...]
    recipe_fingerprint: str | None
    tensors: tuple[TensorChange, ...]
    steps: tuple[StepRecord, ...] = ()
    origins: dict[str, str | None] = Field(
        default_factory=dict,
        description="tensors that the source has under another name, as layers were numbered again; null: none of its",
    )
    scheme: str = Field(default="plain", description="plain, simulated, or how it is packed")
    bits_per_weight: float | None = None
    sparsity: float | None = None
    nominal_sparsity: float | None = Field(
        default=None, description="share of zeros that pruning steps asked for; null where there was none"
    )
    reconstruction_error: float | None = None
    model_bits_per_weight: float
    model_nominal_bytes: int
    file_bytes: int = Field(default=0, description="weight files on disk")
    seconds: float = 0.0


def sparse_bytes(manifest: Manifest) -> int:
    """Bytes of the whole model where zeros of pruned weights are not stored: one bit a weight says where they are.

    A matrix that takes less as it is (few zeros) stays as it is, and so does all that no step pruned. Few kernels run
    from such a form; it is what a disk or a transfer needs.
    """
    return manifest.model_nominal_bytes - sum(_spared(change) for change in manifest.tensors)


def _spared(change: TensorChange) -> int:
    if change.nominal_sparsity is None:
        return 0
    stored = (change.elements - change.zeros) * change.bits_per_weight + change.elements
    return max(0, change.nominal_bytes - ceil(stored / 8))
