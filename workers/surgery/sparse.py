"""What a pruned model takes where its zeros are not stored."""

from __future__ import annotations

from math import ceil

from workers.surgery.manifest import Manifest, TensorChange


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
