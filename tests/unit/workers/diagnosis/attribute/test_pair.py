"""Parts of models whose channels are scaled, each put into the other model in that one's frame."""

from types import SimpleNamespace

import pytest

from app.models.checkpoint import inspect
from tests.support.outliers import with_outliers
from tests.support.published_models import bytes_of, info_of
from tests.support.quantizing import operate
from tests.support.tiny import make_checkpoint
from tests.unit.workers.diagnosis.attribute.swapped import subset
from workers.diagnosis.attribute.changes import Inputs, differing, evidence
from workers.diagnosis.attribute.internals import inner_bytes
from workers.diagnosis.attribute.pair import opened, swapping_bytes
from workers.diagnosis.attribute.sites import sites_of
from workers.surgery.store import CheckpointStore

CONTEXT = SimpleNamespace(progress=lambda *_: None, check_cancelled=lambda: None)
KINDS = ["layer", "module", "norm"]


@pytest.fixture(
    params=[{"type": "quantize.awq", "bits": 8, "group_size": 32}, {"type": "quantize.smoothquant", "bits": 8}],
    ids=lambda step: str(step["type"]),
)
def folders(request, tmp_path):
    reference = with_outliers(make_checkpoint(tmp_path / "reference", "qwen2"))
    with operate(reference, CheckpointStore(tmp_path / "store", 10**9), request.param) as made:
        yield reference, made.path


@pytest.fixture
def both(folders, tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    reference, candidate = map(inspect, folders)
    with opened(reference, candidate, subset(), "bfloat16", "cpu", scratch, CONTEXT) as found:
        yield found


def test_a_part_of_scaled_channels_alone_costs_what_its_rounding_costs(folders, both):
    swapper, _ = both
    sites = [site for site in sites_of(inspect(folders[0])) if site.kind in KINDS]
    whole = float(swapper.kl([site for site in sites if site.whole]).mean())
    assert 0 < whole < 0.01
    assert max(float(swapper.kl([site]).mean()) for site in sites) < 1.5 * whole
    assert max(float(swapper.kl([site], into="candidate").mean()) for site in sites) < 2 * whole


def test_norms_and_biases_that_were_scaled_alone_do_not_differ_and_errors_are_those_of_rounding(folders, both):
    swapper, reads = both
    reference, candidate = map(inspect, folders)
    found = differing(sites_of(reference), reference, candidate, reads, lambda: None)
    assert {site.kind for site in found} == {"layer", "module"}
    inputs = Inputs(swapper.reference)
    for site in found:
        change = evidence(site, reads, inputs, candidate).change
        assert change < 0.03


def test_what_an_8b_takes_of_a_gpu_is_the_sum_of_its_parts_and_a_card_of_24_gb_holds_it(tiny):
    """V × D of 128,256 × 4,096; a layer has two square and two narrow matrices of attention, and three of the MLP."""
    info, tokens = info_of("Llama-3.1-8B", tiny), 4096
    head, layer = 128_256 * 4096, 4096 * (2 * 4096 + 2 * 1024 + 3 * 14_336 + 2)
    tiles = 2 * 2 * 2 * 512 * 128_256
    divergences = 2 * head + 8 * head + tiles
    states = 6 * tokens * 4096 * 2
    swapping = swapping_bytes((info, info), tokens, "bfloat16")
    assert swapping == 2 * (2 * head + 2 * layer) + states + divergences + 24 * head
    inside = inner_bytes((info, info), 8, 512)
    attention = 6 * 32 * 512**2
    assert inside == 4 * (4 * head + 2 * layer + 8 * tokens * 4096 + 6 * 128 * 128_256 + attention)
    assert inside < swapping < bytes_of(24) - 5 * 10**8
