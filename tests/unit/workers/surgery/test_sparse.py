"""What is counted for zeros, by hand."""

from workers.surgery.manifest import Manifest, TensorChange, sparse_bytes


def manifest(*changes, size=10_000):
    return Manifest(
        key="k",
        source_fingerprint="s",
        fingerprint="f",
        recipe=({"type": "prune.magnitude"},),
        recipe_fingerprint="r",
        tensors=changes,
        model_bits_per_weight=16.0,
        model_nominal_bytes=size,
    )


def change(bits, zeros, *, asked=0.5, elements=1000):
    return TensorChange(
        name="w",
        shape=(10, elements // 10),
        dtype="bfloat16",
        steps=(0,),
        bits_per_weight=bits,
        nominal_bytes=round(bits * elements / 8),
        nominal_sparsity=asked,
        zeros=zeros,
        reconstruction_error=0.1,
    )


def test_zeros_cost_one_bit():
    # 500 weights of 16 bits and 1000 bits that say where they are: 1125 bytes instead of 2000.
    assert sparse_bytes(manifest(change(16, 500))) == 10_000 - (2000 - 1125)
    # 4 bits: 375 instead of 500.
    assert sparse_bytes(manifest(change(4, 500))) == 10_000 - (500 - 375)


def test_few_zeros_are_stored_as_they_are():
    assert sparse_bytes(manifest(change(4, 100))) == 10_000


def test_zeros_that_no_step_asked_for_are_none():
    assert sparse_bytes(manifest(change(16, 500, asked=None))) == 10_000
