"""What a test needs of the processor; on one without it the test is skipped, and says why."""

import pytest

from app.models.processor import has, has_avx512

needs_avx512 = pytest.mark.skipif(
    not has_avx512(), reason="vLLM's CPU build has this kernel for processors with AVX-512 alone, and it is refused"
)
# Without VNNI products of 8-bit integers are added up in 16 bits, which saturate.
needs_vnni = pytest.mark.skipif(
    not (has("avx512_vnni", unknown=True) or has("avx_vnni", unknown=True)),
    reason="oneDNN's 8-bit products saturate on processors without VNNI: the kernel is not exact there",
)
