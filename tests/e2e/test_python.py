"""`import hemostat`, as a notebook uses it."""

import json
from pathlib import Path

import pytest

import hemostat
from app.contracts.errors import ErrorCode
from app.up import Service

DOCUMENTS = [{"id": f"c{n}", "domain": "prose", "text": f"the quick fox {n} jumps over dog {n * n}"} for n in range(12)]


@pytest.fixture(autouse=True)
def here(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


def test_a_file_and_written_steps_give_the_report_of_their_json(service: Service, tmp_path: Path) -> None:
    file = tmp_path / "text.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in DOCUMENTS))
    written = hemostat.compare(
        "tiny", recipe=["quantize.rtn:bits=2,group_size=64"], text=file, window=64, url=service.url
    )
    given = hemostat.compare(
        "tiny",
        recipe=[{"type": "quantize.rtn", "bits": 2, "group_size": 64}],
        text={"source": "inline", "documents": DOCUMENTS},
        window=64,
        url=service.url,
    )
    assert written.divergence == given.divergence
    assert written.divergence.kl.mean > 0.1
    assert written.protocol.window == 64


def test_a_refusal_has_the_code_of_the_service(service: Service) -> None:
    with pytest.raises(hemostat.HemostatError) as refused:
        hemostat.compare("tinyy", self_check=True, url=service.url)
    assert refused.value.code is ErrorCode.UNKNOWN_MODEL


def test_an_unknown_option_is_refused_before_anything_runs() -> None:
    for unknown in ({"windows": 64}, {"windows": {}}):
        with pytest.raises(TypeError, match="windows"):
            hemostat.compare("tiny", self_check=True, **unknown)
