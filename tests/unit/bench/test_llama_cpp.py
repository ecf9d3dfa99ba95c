"""A compare job's rate over that of llama.cpp's tool."""

from pathlib import Path

from pytest import approx, fixture

from tests.bench.llama_cpp import FILE, Rate, multiples, rates
from tests.bench.rows import Row
from tests.bench.run import RESULTS, results_file


@fixture
def file(tmp_path: Path) -> Path:
    written = tmp_path / "llama_cpp.csv"
    written.write_text(
        "processor,version,weights,windows,base_seconds,kld_seconds\n"
        "cpu a,1,bf16,20,30,20.4\n"
        "cpu a,1,bf16,20,30.6,20.4\n"
        "cpu a,1,bf16,20,80,90\n"
        "cpu a,1,f32,40,51,51\n"
        "cpu b,1,bf16,20,1,1\n"
    )
    return written


def test_the_median_run_of_a_kind_of_processor_is_its_rate(file: Path) -> None:
    # 20 windows are 5,100 scored tokens: 5,100 / 51 s and 5,100 / 20.4 s.
    assert rates("cpu a", file) == {
        "bf16": Rate(both=approx(100.0), stored=approx(250.0)),
        "f32": Rate(both=approx(100.0), stored=approx(200.0)),
    }
    assert rates("cpu c", file) == {}


def test_a_job_is_held_to_three_times_both_passes_and_2_6_times_the_stored_one(file: Path) -> None:
    rows = [
        Row("compare", "cold_long", "job_tokens_per_second", 300.0, "tokens/s"),
        Row("compare", "stored_reference", "job_tokens_per_second", 600.0, "tokens/s"),
        Row("compare", "cold", "reference_seconds", 3.0, "s"),
        Row("sweep", "cold", "job_tokens_per_second", 3.0, "tokens/s"),
    ]
    found = {row[:3]: row.value for row in multiples(rows, "cpu a", file)}
    assert found == {
        ("compare", "cold_long", "over_llama_cpp_bf16"): approx(3.0),
        ("compare", "cold_long", "over_llama_cpp_bf16_bar"): 3.0,
        ("compare", "cold_long", "over_llama_cpp_bf16_met"): 1.0,
        ("compare", "cold_long", "over_llama_cpp_f32"): approx(3.0),
        ("compare", "cold_long", "over_llama_cpp_f32_bar"): 3.0,
        ("compare", "cold_long", "over_llama_cpp_f32_met"): 1.0,
        ("compare", "stored_reference", "over_llama_cpp_bf16"): approx(2.4),
        ("compare", "stored_reference", "over_llama_cpp_bf16_bar"): 2.6,
        ("compare", "stored_reference", "over_llama_cpp_bf16_met"): 0.0,
        ("compare", "stored_reference", "over_llama_cpp_f32"): approx(3.0),
        ("compare", "stored_reference", "over_llama_cpp_f32_bar"): 2.6,
        ("compare", "stored_reference", "over_llama_cpp_f32_met"): 1.0,
    }
    assert multiples(rows, "cpu c", file) == []


def test_every_kind_that_the_tool_was_run_on_has_results_of_ours() -> None:
    kinds = {line.split(",")[0] for line in FILE.read_text().splitlines()[1:]}
    assert kinds
    assert {results_file(kind).name for kind in kinds} <= {each.name for each in RESULTS.glob("*.csv")}
