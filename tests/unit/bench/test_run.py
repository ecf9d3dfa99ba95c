from tests.bench.rows import Row
from tests.bench.run import held


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
