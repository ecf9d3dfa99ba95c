import pytest

from tests.bench.rows import Row
from tests.bench.run import derived, held, results_file


def test_a_bar_stands_beside_its_number_met_or_missed() -> None:
    rows = [
        Row("compare", "cold", "job_tokens_per_second", 530.9, "tokens/s"),
        Row("compare", "stored_reference", "job_tokens_per_second", 884.0, "tokens/s"),
        Row("sweep", "two_workers", "job_ratio", 0.61, "ratio"),
        Row("attribute", "30_layers", "search_forward_passes", 32.0, "passes"),
        Row("attribute", "30_layers", "search_seconds", 100.0, "s"),
    ]
    assert held(rows) == [
        Row("compare", "cold", "job_tokens_per_second_bar", 531, "tokens/s"),
        Row("compare", "cold", "job_tokens_per_second_met", 0, "yes=1"),
        Row("compare", "stored_reference", "job_tokens_per_second_bar", 884, "tokens/s"),
        Row("compare", "stored_reference", "job_tokens_per_second_met", 1, "yes=1"),
        Row("sweep", "two_workers", "job_ratio_bar", 0.6, "ratio"),
        Row("sweep", "two_workers", "job_ratio_met", 0, "yes=1"),
        Row("attribute", "30_layers", "search_forward_passes_bar", 32, "passes"),
        Row("attribute", "30_layers", "search_forward_passes_met", 1, "yes=1"),
    ]


def test_a_ratio_is_judged_as_it_is_now_and_not_as_it_was_kept() -> None:
    rows = [
        Row("memory", "10k", "peak_resident", 1000.0, "B"),
        Row("memory", "100k", "peak_resident", 1100.0, "B"),
        Row("memory", "100k_over_10k", "peak_resident_ratio", 1.01, "ratio"),
    ]
    assert derived(rows, "cpu of a kind that nothing was measured on") == [
        Row("memory", "100k_over_10k", "peak_resident_ratio", 1.1, "ratio"),
        Row("memory", "100k_over_10k", "peak_resident_ratio_bar", 1.05, "ratio"),
        Row("memory", "100k_over_10k", "peak_resident_ratio_met", 0.0, "yes=1"),
    ]


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("cpu x86_64 avx512+bf16 2 threads", "cpu-x86_64-avx512-bf16-2-threads.csv"),
        ("cuda Tesla T4 (rev/A)", "cuda-Tesla-T4-rev-A.csv"),
    ],
)
def test_each_kind_of_processor_has_a_file_of_its_own(device: str, name: str) -> None:
    assert results_file(device).name == name
    assert results_file(device).parent.name == "results"
