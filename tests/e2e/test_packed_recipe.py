"""A recipe that packs, as the command line writes it, through the whole service."""

from collections.abc import Callable
from typing import Any

from app.cli.client import Client
from app.commands.recipes import parse_recipe
from tests.e2e.conftest import compare_request
from tests.support.processor import needs_avx512

Json = dict[str, Any]
SEEN = "calibration_windows=8,calibration_window=64"


@needs_avx512
def test_a_packed_candidate_is_served_by_its_own_kernels(finish: Callable[[Json], Json], client: Client) -> None:
    recipe = parse_recipe([f"quantize.gptq:bits=4,form=packed,symmetric=true,group_size=32,{SEEN}"])
    job = finish(compare_request(recipe=recipe))
    assert job["status"] == "succeeded", job["error"]
    report = client.report(job["id"])
    candidate = report["provenance"]["candidate"]
    assert candidate["scheme"] == "w4a16"
    assert candidate["recipe"][0]["type"] == "quantize.gptq"
    # what the files hold: 4-bit codes, a 16-bit scale for 32 weights, embeddings and norms in bf16
    assert 4.5 < candidate["bits_per_weight"] < 8
    term = report["kernel_term"]
    assert term["scheme"] == "w4a16"
    assert term["kl"]["mean"] < 0.2 * report["divergence"]["kl"]["mean"]
