"""Everything here runs against the real `datasets` library, offline: what it has in its cache, or nothing."""

import json
from collections.abc import Callable
from pathlib import Path

import datasets
import pytest

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.text import HubText
from app.settings import Settings
from workers.text.documents import TextDocument
from workers.text.hub import load_hub

Make = Callable[..., Settings]
REVISION = "0123456789abcdef0123456789abcdef01234567"
ROWS = [
    {"text": "first row", "title": "a", "year": 2001},
    {"text": "  \n", "title": "blank", "year": 2002},
    {"text": "second row", "title": "b", "year": 2003},
    {"text": "third row", "title": "c", "year": 2004},
]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache in which the data set someone/letters was loaded before, at `REVISION`."""
    folder = tmp_path / "cache"
    rows = tmp_path / "rows.jsonl"
    rows.write_text("\n".join(json.dumps(row) for row in ROWS))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    datasets.disable_progress_bars()
    datasets.load_dataset("json", data_files={"test": str(rows)}, cache_dir=str(folder))
    [made] = folder.glob("json/default-*/*/*/dataset_info.json")
    information = json.loads(made.read_text()) | {"config_name": "default", "dataset_name": "letters"}
    made.write_text(json.dumps(information))
    home = folder / "someone___letters" / "default" / "0.0.0"
    home.parent.mkdir(parents=True)
    made.parents[1].rename(home)
    (home / made.parent.name).rename(home / REVISION)
    for file in (home / REVISION).glob("json-*.arrow"):
        file.rename(file.with_name(file.name.replace("json-", "letters-")))
    return folder


def source(**fields: object) -> HubText:
    return HubText.model_validate({"source": "hub", "dataset": "someone/letters"} | fields)


def refused(settings: Settings, **fields: object) -> HemostatError:
    with pytest.raises(HemostatError) as caught:
        load_hub(source(**fields), settings=settings)
    return caught.value


@pytest.mark.usefixtures("cache")
def test_the_first_rows_that_are_not_blank_become_documents(settings: Make) -> None:
    assert load_hub(source(documents=2, domain="letters"), settings=settings()) == [
        TextDocument("test-0", "letters", text="first row"),
        TextDocument("test-2", "letters", text="second row"),
    ]
    assert len(load_hub(source(documents=50, column="title"), settings=settings())) == 4


@pytest.mark.usefixtures("cache")
def test_a_missing_column_names_the_columns(settings: Make) -> None:
    error = refused(settings(), column="content")
    assert error.code is ErrorCode.INVALID_REQUEST
    assert error.pointer == "/text/column"
    for name in ("'text'", "'title'", "'year'", "'content'"):
        assert name in error.detail


@pytest.mark.usefixtures("cache")
def test_a_column_that_is_no_text_is_refused(settings: Make) -> None:
    error = refused(settings(), column="year")
    assert error.code is ErrorCode.INVALID_REQUEST
    assert "int" in error.detail


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("fields", [{"split": "validation"}, {"config": "other"}])
def test_a_split_or_configuration_that_is_not_there(fields: dict[str, object], settings: Make) -> None:
    error = refused(settings(), **fields)
    assert error.code is ErrorCode.TEXT_NOT_FOUND
    assert next(iter(fields.values())) in error.detail  # type: ignore[operator]


@pytest.mark.usefixtures("cache")
def test_offline_a_revision_is_taken_only_if_it_is_the_cached_one(settings: Make) -> None:
    assert len(load_hub(source(revision=REVISION), settings=settings())) == 3
    error = refused(settings(), revision="main")
    assert error.code is ErrorCode.HUB_UNAVAILABLE
    assert REVISION in error.detail


@pytest.mark.usefixtures("cache")
def test_offline_and_not_cached_says_what_to_do(settings: Make) -> None:
    error = refused(settings(), dataset="someone/else")
    assert error.code is ErrorCode.HUB_UNAVAILABLE
    assert error.status == 503
    assert error.retry_after_s
    assert "'someone/else'" in error.detail
    assert "HF_HUB_OFFLINE" in error.hint
    assert "file source" in error.hint


@pytest.mark.parametrize("name", ["someone/here", "here"])
def test_a_local_folder_of_that_name_is_neither_read_nor_run(name: str, cache: Path, settings: Make) -> None:
    folder = cache.parent / name
    folder.mkdir(parents=True)
    (folder / "test.jsonl").write_text('{"text": "a secret of this machine"}')
    (folder / f"{folder.name}.py").write_text("raise SystemExit('it was run')")
    assert refused(settings(), dataset=name).code is ErrorCode.HUB_UNAVAILABLE


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("name", ["text", "json", "parquet", "buckets/x"])
def test_the_library_s_own_builders_are_no_data_sets(name: str, settings: Make) -> None:
    assert refused(settings(), dataset=name).code is ErrorCode.TEXT_NOT_FOUND


@pytest.mark.usefixtures("cache")
def test_it_tells_how_far_it_is_and_stops_when_told(settings: Make) -> None:
    told: list[tuple[str, int, int]] = []
    load_hub(source(documents=2), settings=settings(), progress=lambda *step: told.append(step))
    assert told == [("text", 0, 2), ("text", 1, 2), ("text", 2, 2)]

    class StoppedError(Exception):
        pass

    def stop() -> None:
        raise StoppedError

    with pytest.raises(StoppedError):
        load_hub(source(), settings=settings(), check_cancelled=stop)
