"""The real `datasets` library reads from a hub on loopback."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.text import HubText
from app.models.texts import check_text
from app.settings import Settings
from tests.support.hub import Hub, serving
from tests.support.refusals import refused as refusing
from workers.text.documents import TextDocument
from workers.text.hub import load_hub

Make = Callable[..., Settings]
NAME = "someone/letters"
ROWS = [
    {"text": "first row", "title": "a", "year": 2001},
    {"text": "  \n", "title": "blank", "year": 2002},
    {"text": "second row", "title": "b", "year": 2003},
    {"text": "third row", "title": "c", "year": 2004},
]


def lines(rows: list[dict[str, object]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub of one data set."""
    with serving() as found:
        found.files[NAME] = {"test.jsonl": lines(ROWS), "README.md": b"---\nlicense: mit\n---\n"}
        monkeypatch.setenv("HF_ENDPOINT", found.url)
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        monkeypatch.setenv("HF_HUB_CACHE", "/proc/nowhere")  # models' cache, which may be read-only, is left alone
        yield found


@pytest.fixture
def elsewhere() -> Iterator[Hub]:
    """Another server on loopback, which nobody may ask anything."""
    with serving() as found:
        yield found
        assert found.asked == []


@pytest.fixture
def allowed(settings: Make) -> Settings:
    return settings(hub_text=f"wikitext, {NAME}")


def source(**fields: object) -> HubText:
    return HubText.model_validate({"source": "hub", "dataset": NAME} | fields)


def refused(settings: Settings, **fields: object) -> HemostatError:
    with pytest.raises(HemostatError) as caught:
        load_hub(source(**fields), settings=settings)
    return caught.value


def test_no_data_set_is_read_that_the_operator_has_not_named(hub: Hub, settings: Make, tmp_path: Path) -> None:
    for configured in (settings(), settings(hub_text="someone"), settings(hub_text="someone/letters2")):
        assert refused(configured).code is ErrorCode.HUB_FORBIDDEN
        with refusing(ErrorCode.HUB_FORBIDDEN, "/text/dataset"):
            check_text(source(), tmp_path, configured, "/text")
    assert hub.asked == []


def test_the_first_rows_that_are_not_blank_become_documents(hub: Hub, allowed: Settings, tmp_path: Path) -> None:
    check_text(source(), tmp_path, allowed, "/text")
    told: list[tuple[str, int, int]] = []
    found = load_hub(source(documents=2, domain="letters"), settings=allowed, progress=lambda *step: told.append(step))
    assert found == [
        TextDocument("test-0", "letters", text="first row"),
        TextDocument("test-2", "letters", text="second row"),
    ]
    assert told == [("text", 0, 2), ("text", 1, 2), ("text", 2, 2)]
    assert len(load_hub(source(documents=50, column="title"), settings=allowed)) == 4
    assert not [path for path in allowed.home.iterdir() if path.name.startswith("hub-")]


def test_a_missing_column_names_the_columns(hub: Hub, allowed: Settings) -> None:
    error = refused(allowed, column="content")
    assert (error.code, error.pointer) == (ErrorCode.INVALID_REQUEST, "/text/column")
    for name in ("'text'", "'title'", "'year'", "'content'"):
        assert name in error.detail


def test_a_column_that_is_no_text_is_refused(hub: Hub, allowed: Settings) -> None:
    error = refused(allowed, column="year")
    assert error.code is ErrorCode.INVALID_REQUEST
    assert "int" in error.detail


@pytest.mark.parametrize("fields", [{"split": "validation"}, {"config": "other"}])
def test_a_split_or_configuration_that_is_not_there(fields: dict[str, object], hub: Hub, allowed: Settings) -> None:
    assert refused(allowed, **fields).code is ErrorCode.TEXT_NOT_FOUND


def test_a_data_set_that_the_hub_has_not(hub: Hub, settings: Make) -> None:
    error = refused(settings(hub_text="someone/else"), dataset="someone/else")
    assert error.code is ErrorCode.TEXT_NOT_FOUND


def test_a_hub_that_is_away_says_what_to_do(monkeypatch: pytest.MonkeyPatch, allowed: Settings) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    error = refused(allowed)
    assert (error.code, error.status) == (ErrorCode.HUB_UNAVAILABLE, 503)
    assert error.retry_after_s
    assert "HF_HUB_OFFLINE" in error.hint


def test_no_token_is_sent_but_the_one_that_is_named(
    hub: Hub, settings: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_operators")
    stored = tmp_path / "huggingface"
    stored.mkdir()
    (stored / "token").write_text("hf_stored")
    monkeypatch.setenv("HF_HOME", str(stored))
    load_hub(source(), settings=settings(hub_text=NAME))
    assert {key for _, key in hub.asked} == {None}
    named = tmp_path / "named"
    named.write_text("hf_named\n")
    load_hub(source(), settings=settings(hub_text=NAME, hub_token_file=named))
    assert {key for _, key in hub.asked} == {None, "Bearer hf_named"}


def test_reading_ends_at_the_budget_of_bytes(hub: Hub, settings: Make) -> None:
    hub.files[NAME]["test.jsonl"] = lines([{"text": " " * 1000} for _ in range(20_000)])  # 20 MB, and all of it blank
    configured = settings(hub_text=NAME, hub_text_bytes=200_000)
    error = refused(configured)
    assert error.code is ErrorCode.HUB_UNAVAILABLE
    assert "200,000 bytes" in error.detail
    assert not [path for path in configured.home.iterdir() if path.name.startswith("hub-")]


def test_only_what_is_needed_of_a_large_file_is_read(hub: Hub, allowed: Settings) -> None:
    data = hub.files[NAME]["test.jsonl"] = lines([{"text": "word " * 200} for _ in range(60_000)])
    assert len(load_hub(source(documents=3), settings=allowed)) == 3
    assert hub.sent < len(data)


def test_it_stops_when_told_while_the_hub_sends_nothing(hub: Hub, allowed: Settings) -> None:
    hub.stalled.add("test.jsonl")

    class StoppedError(Exception):
        pass

    def stop() -> None:
        if any(path.endswith("/test.jsonl") for path in hub.paths):
            raise StoppedError

    with pytest.raises(StoppedError):
        load_hub(source(), settings=allowed, check_cancelled=stop)


def card(*files: str) -> bytes:
    listed = "".join(f'\n  - split: test\n    path: "{file}"' for file in files)
    return f"---\nconfigs:\n- config_name: default\n  data_files:{listed}\n---\n".encode()


def test_no_other_host_is_asked_whatever_the_card_says(hub: Hub, elsewhere: Hub, allowed: Settings) -> None:
    for address in (f"{elsewhere.url}/meta?x=.txt", f"{elsewhere.url}/test.jsonl"):
        hub.files[NAME]["README.md"] = card(address)
        assert refused(allowed).code is ErrorCode.TEXT_NOT_FOUND


def test_no_other_host_is_asked_where_a_file_leads_to_one(hub: Hub, elsewhere: Hub, allowed: Settings) -> None:
    hub.leads["test.jsonl"] = f"{elsewhere.url}/datasets/{NAME}/resolve/main/test.jsonl"
    assert refused(allowed).code is ErrorCode.TEXT_NOT_FOUND


def test_files_of_this_machine_are_neither_read_nor_told_from_missing_ones(
    hub: Hub, allowed: Settings, tmp_path: Path
) -> None:
    (tmp_path / "there.txt").write_text("a secret of this machine")
    told = set()
    for name in ("there.txt", "missing.txt"):
        hub.files[NAME]["README.md"] = card(str(tmp_path / name))
        error = refused(allowed)
        told.add((error.code, error.detail))
    assert len(told) == 1


def test_files_of_another_data_set_are_not_read(hub: Hub, allowed: Settings) -> None:
    hub.files["someone/private"] = {"test.jsonl": lines([{"text": "not allowed"}])}
    hub.files[NAME]["README.md"] = card("hf://datasets/someone/private/test.jsonl")
    assert refused(allowed).code is ErrorCode.TEXT_NOT_FOUND
