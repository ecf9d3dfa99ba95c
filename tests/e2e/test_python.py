"""`import hemostat`, as a script and a notebook use it."""

import json
import threading
from pathlib import Path

import pytest

import hemostat
from app.contracts.errors import ErrorCode
from app.up import Service

DOCUMENTS = [{"id": f"c{n}", "domain": "prose", "text": f"the quick fox {n} jumps over dog {n * n}"} for n in range(12)]
INLINE = {"source": "inline", "documents": DOCUMENTS}


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
    step = {"type": "quantize.rtn", "bits": 2, "group_size": 64}
    given = hemostat.compare("tiny", recipe=[step], text=INLINE, window=64, url=service.url)
    assert written.divergence == given.divergence
    assert written.divergence.kl.mean > 0.1
    assert written.provenance.protocol.window == 64


def test_a_service_of_its_own_is_started_from_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEMOSTAT_PORT", "1")  # nothing listens there
    found: list[hemostat.CompareReport] = []
    thread = threading.Thread(
        target=lambda: found.append(hemostat.compare("tiny", self_check=True, text=INLINE, window=64))
    )
    thread.start()
    thread.join()
    assert found[0].divergence.kl.mean == 0


def test_a_refusal_has_the_code_and_the_hint_of_the_command(service: Service) -> None:
    with pytest.raises(hemostat.HemostatError) as refused:
        hemostat.compare("tinyy", self_check=True, url=service.url)
    assert refused.value.code is ErrorCode.UNKNOWN_MODEL
    with pytest.raises(hemostat.HemostatError, match="--windows") as refused:
        hemostat.compare("tiny", windows=64)
    assert refused.value.code is ErrorCode.INVALID_REQUEST
    assert refused.value.hint
