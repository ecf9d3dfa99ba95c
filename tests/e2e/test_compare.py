"""Compare jobs through the whole service: HTTP, queue, worker, vLLM, report."""

from collections.abc import Callable
from typing import Any

import httpx
import jsonschema
import pyarrow.parquet as pq
import pytest

from app.cli.client import Client
from app.cli.schema import report_schema
from app.settings import Settings
from tests.e2e.conftest import DOCUMENTS, compare_request
from tests.support.processor import needs_avx512, needs_vnni

Json = dict[str, Any]
Finish = Callable[[Json], Json]
RTN4: Json = {"type": "quantize.rtn", "bits": 4, "group_size": 32}
RTN2: Json = {"type": "quantize.rtn", "bits": 2, "group_size": 64}
SCHEMA = report_schema("compare")


def test_a_model_against_itself_diverges_by_exactly_nothing(finish: Finish, client: Client) -> None:
    job = finish(compare_request())
    assert (job["status"], job["severity"]) == ("succeeded", "none")
    report = client.report(job["id"])
    for name in ("kl", "reverse_kl", "js", "tv"):
        assert report["divergence"][name]["max"] == 0
        assert report["divergence"][name]["ci"] == [0, 0]
    assert report["top1_agreement"]["mean"] == 1
    assert report["perplexity"]["ratio"]["mean"] == 1
    assert report["noise_floor"]["kl"]["max"] == 0  # one window a step or many: the CPU gives the same bits
    assert report["decision"]["conclusive"]
    assert any(warning["code"] == "same_model" for warning in report["warnings"])


def test_a_quantized_model_gets_a_valid_report_with_everything_that_was_promised(
    finish: Finish, client: Client, http: httpx.Client, settings: Settings
) -> None:
    job = finish(compare_request(recipe=[RTN4]))
    assert job["status"] == "succeeded", job["error"]
    report = client.report(job["id"])
    jsonschema.Draft202012Validator(SCHEMA).validate(report)
    assert report["schema"] == "hemostat.report/1"
    assert report["documents"] == len(DOCUMENTS)
    assert not any(warning["code"] == "same_model" for warning in report["warnings"])
    assert set(report["domains"]) == {"prose", "code"}
    kl = report["divergence"]["kl"]
    assert 0 < kl["ci"][0] < kl["mean"] < kl["ci"][1]
    assert report["provenance"]["candidate"]["recipe"][0]["bits"] == 4
    # 4-bit codes, a 16-bit scale and a 4-bit zero point for 32 weights; embeddings and norms stay in bf16
    assert 4 + 20 / 32 < report["provenance"]["candidate"]["bits_per_weight"] < 16
    assert sum(part["tokens"] for part in report["by_position"]) == report["tokens"]
    assert sum(part["tokens"] for part in report["by_confidence"]) == report["tokens"]
    assert any(token["text"] for passage in report["passages"] for token in passage["tokens"])

    page = http.get(f"/v1/diagnosis/jobs/{job['id']}/report", headers={"accept": "text/html"})
    assert page.headers["content-type"].startswith("text/html")
    assert report["severity"] in page.text
    artifact = http.get(f"/v1/diagnosis/jobs/{job['id']}/artifacts/tokens.parquet")
    local = settings.home / "downloaded.parquet"
    local.write_bytes(artifact.content)
    table = pq.read_table(local)
    assert table.num_rows == report["tokens"]
    assert sum(table.column("kl").to_pylist()) / table.num_rows == pytest.approx(kl["mean"], rel=1e-6)


def test_the_reference_is_scored_once_for_a_text(finish: Finish, client: Client) -> None:
    documents = [document | {"text": f"{document['text']} once"} for document in DOCUMENTS]
    request = compare_request(recipe=[RTN4], text={"source": "inline", "documents": documents})
    first, second = (client.report(finish(request)["id"]) for _ in range(2))
    assert not first["provenance"]["reference_from_store"]
    assert second["provenance"]["reference_from_store"]
    assert second["divergence"] == first["divergence"]


@pytest.mark.parametrize(
    "candidate", [pytest.param("tiny-w8a8", marks=needs_vnni), pytest.param("tiny-w4a16", marks=needs_avx512)]
)
def test_a_packed_checkpoint_shows_its_kernel_term_apart(finish: Finish, client: Client, candidate: str) -> None:
    job = finish(compare_request(candidate))
    assert job["status"] == "succeeded", job["error"]
    report = client.report(job["id"])
    assert report["provenance"]["candidate"]["scheme"] == candidate.removeprefix("tiny-")
    term = report["kernel_term"]
    assert term["scheme"] == candidate.removeprefix("tiny-")
    # Kernels alone do less than kernels and 4 or 8 bits together. Those of 4 bits may do nothing: with AMX they compute
    # what the weights mean in bf16, bit for bit.
    assert term["kl"]["mean"] < report["divergence"]["kl"]["mean"]
    assert term["kl"]["mean"] >= 0
    assert term["kl"]["mean"] > 0 or candidate == "tiny-w4a16"


def test_other_weights_altogether_are_far_off(finish: Finish) -> None:
    assert finish(compare_request("tiny-other-weights"))["severity"] in {"severe", "collapse"}


def test_logits_that_are_not_finite_are_counted_and_make_it_collapse(finish: Finish, client: Client) -> None:
    job = finish(compare_request("tiny-overflowing"))
    assert (job["status"], job["severity"]) == ("succeeded", "collapse"), job["error"]
    report = client.report(job["id"])
    assert report["nonfinite_positions"] == report["tokens"]
    assert "not finite" in report["verdict"]


def test_text_is_kept_out_of_the_report_where_it_may_not_be_stored(finish: Finish, http: httpx.Client) -> None:
    secret = "jabberwocky"
    documents = [{"id": f"s{n}", "text": f"{secret} number {n} jumps over the dog {secret}"} for n in range(8)]
    request = compare_request(recipe=[RTN2], text={"source": "inline", "documents": documents}, store_text=False)
    job = finish(request)
    assert job["status"] == "succeeded", job["error"]
    for shown in ("json", "html"):
        page = http.get(f"/v1/diagnosis/jobs/{job['id']}/report", params={"format": shown})
        assert page.status_code == 200
        assert secret not in page.text


def test_metrics_of_both_processes_hold_no_text(finish: Finish, http: httpx.Client, service: Any) -> None:
    job = finish(compare_request(recipe=[RTN4]))
    fingerprint = job["candidate"]["recipe"]
    worker = httpx.get(service.worker_metrics_url, timeout=60).text
    api = http.get("/metrics").text
    assert 'hemostat_kl_mean_nats{model="tiny"' in worker
    assert "hemostat_tokens_scored_total" in worker
    assert "hemostat_jobs" in api
    assert fingerprint
    for text in (worker, api):
        assert "lazy dog" not in text


def test_nothing_in_the_logs_is_text_of_a_document(finish: Finish, settings: Settings) -> None:
    word = "brillig-slithy-toves"
    documents = [{"id": "p1", "text": f"{word} and more of it"}, {"id": "p2", "text": f"again {word} and so on"}]
    finish(compare_request("tiny-nan", text={"source": "inline", "documents": documents}))
    finish(compare_request(recipe=[RTN2], text={"source": "inline", "documents": documents}))
    logs = list((settings.home / "logs").glob("*.log"))
    assert logs
    for log in logs:
        assert word not in log.read_text(errors="replace")
