"""A divergence where engines run."""

from workers.distributions.divergence import Divergence, Precision
from workers.distributions.head import Head
from workers.engine.pool import EnginePool
from workers.engine.sizes import divergence_bytes


def divergence_beside(reference: Head, candidate: Head, *, precision: Precision, pool: EnginePool) -> Divergence:
    """The divergence of two models on the device of their engines.

    Raises ENGINE_OUT_OF_MEMORY if a GPU does not hold it, and what `Divergence` raises.
    """
    if pool.device != "cpu":
        other = None if reference.same_matrix(candidate) else candidate
        needed = divergence_bytes(reference, pool.device, candidate=other, precision=precision)
        pool.make_room(needed, what="the divergence")
    return Divergence(reference, candidate, precision=precision, device=pool.device)
