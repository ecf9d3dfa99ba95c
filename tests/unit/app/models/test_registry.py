import os

import pytest

from app.contracts.errors import ErrorCode, HemostatError
from app.models.registry import load_registry, register

GOOD = """
[models.small]
path = "checkpoints/small"   # relative to this file

[models."Big-1.5"]
hub = "org/name"
revision = "abc123"
tokenizer = "tokenizers/big"
dtype = "float32"
"""


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "models.toml"
    file.write_text(GOOD)
    return file


def refused(file, text):
    file.write_text(text)
    with pytest.raises(HemostatError) as caught:
        load_registry(file)
    assert caught.value.code is ErrorCode.MODELS_FILE_INVALID
    assert str(file) in caught.value.detail
    assert caught.value.hint
    return caught.value


def test_entries_are_read_and_relative_paths_start_at_the_file(file, tmp_path):
    registry = load_registry(file)
    assert registry.aliases == ("Big-1.5", "small")
    small, big = registry.resolve("small"), registry.resolve("Big-1.5")
    assert (small.path, small.hub_id, small.tokenizer, small.dtype) == (
        tmp_path / "checkpoints/small",
        None,
        None,
        "bfloat16",
    )
    assert (big.path, big.hub_id, big.revision, big.dtype) == (None, "org/name", "abc123", "float32")
    assert big.tokenizer == tmp_path / "tokenizers/big"


def test_absolute_paths_stay_as_they_are(file, tmp_path):
    file.write_text(f'[models.a]\npath = "{tmp_path}/elsewhere"\n')
    assert load_registry(file).resolve("a").path == tmp_path / "elsewhere"


def test_an_unknown_alias_is_told_with_the_nearest(file):
    with pytest.raises(HemostatError) as caught:
        load_registry(file).resolve("smal", pointer="/reference/model")
    assert (caught.value.code, caught.value.status) == (ErrorCode.UNKNOWN_MODEL, 404)
    assert caught.value.pointer == "/reference/model"
    assert "'small'" in caught.value.hint


def test_a_changed_file_is_read_again_and_an_unchanged_one_is_not(file):
    first = load_registry(file)
    assert load_registry(file) is first
    stat = file.stat()
    file.write_text(GOOD.replace("models.small", "models.other"))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert load_registry(file).aliases == ("Big-1.5", "other")


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(HemostatError) as caught:
        load_registry(tmp_path / "none.toml")
    assert caught.value.code is ErrorCode.MODELS_FILE_INVALID


def test_a_file_that_is_no_text_is_told(file):
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(HemostatError) as caught:
        load_registry(file)
    assert caught.value.code is ErrorCode.MODELS_FILE_INVALID


def test_bad_toml_is_told_with_its_line(file):
    assert "line 2" in refused(file, '[models.a]\npath = "x\n').detail


@pytest.mark.parametrize(
    ("text", "line", "hint"),
    [
        ('[models.a]\npath = "x"\npaht = "y"\n', 3, "'path'"),
        ('[model.a]\npath = "x"\n', 0, "'models'"),
        ('\n[models.a]\ndtype = "bfloat16"\n', 2, "exactly one"),
        ('[models.a]\npath = "x"\nhub = "o/n"\nrevision = "r"\n', 1, "exactly one"),
        ('[models.a]\nhub = "o/n"\n', 1, "commit"),
        ('[models.a]\npath = "x"\nrevision = "r"\n', 1, "commit"),
        ('[models.a]\nhub = "https://evil"\nrevision = "r"\n', 2, "org/name"),
        ('[models.a]\nhub = "o/n"\nrevision = "../../x"\n', 2, "org/name"),
        ('[models.a]\npath = "x"\ndtype = "bfloat"\n', 3, "'bfloat16'"),
        ("[models.a]\npath = 3\n", 2, 'path = "…"'),
        ('[models.a]\npath = ""\n', 2, 'path = "…"'),
        ('[models."a b"]\npath = "x"\n', 1, "letters"),
        ('[models]\npath = "x"\n', 2, "[models.NAME]"),
        ('models = "x"\n', 1, "[models.NAME]"),
    ],
)
def test_what_does_not_fit_is_told_with_line_and_advice(file, text, line, hint):
    error = refused(file, text)
    assert (f" line {line}: " in error.detail) == bool(line)
    assert hint in error.hint


def test_a_local_folder_must_be_there(file, tmp_path):
    entry = load_registry(file).resolve("small")
    with pytest.raises(HemostatError) as caught:
        entry.checkpoint_path(pointer="/candidate/model")
    assert caught.value.code is ErrorCode.CHECKPOINT_NOT_FOUND
    assert caught.value.pointer == "/candidate/model"
    (tmp_path / "checkpoints/small").mkdir(parents=True)
    assert entry.checkpoint_path() == entry.tokenizer_path() == tmp_path / "checkpoints/small"


def test_a_hub_id_leads_to_the_local_cache(file, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    entry = load_registry(file).resolve("Big-1.5")
    with pytest.raises(HemostatError) as caught:
        entry.checkpoint_path()
    assert caught.value.code is ErrorCode.CHECKPOINT_NOT_FOUND
    assert "hf download org/name --revision abc123" in caught.value.hint
    snapshot = tmp_path / "hub/models--org--name/snapshots/abc123"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    assert entry.checkpoint_path() == snapshot


def test_a_branch_of_the_hub_leads_to_its_commit(file, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    file.write_text('[models.a]\nhub = "org/name"\nrevision = "main"\n')
    repository = tmp_path / "hub/models--org--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text("c0ffee")
    (repository / "snapshots/c0ffee").mkdir(parents=True)
    (repository / "snapshots/c0ffee/config.json").write_text("{}")
    assert load_registry(file).resolve("a").checkpoint_path() == repository / "snapshots/c0ffee"
    (repository / "refs/main").write_text("../../../..")
    with pytest.raises(HemostatError):
        load_registry(file).resolve("a").checkpoint_path()


def test_a_tokenizer_folder_must_be_there(file, tmp_path):
    entry = load_registry(file).resolve("Big-1.5")
    with pytest.raises(HemostatError) as caught:
        entry.tokenizer_path()
    assert caught.value.code is ErrorCode.CHECKPOINT_NOT_FOUND
    (tmp_path / "tokenizers/big").mkdir(parents=True)
    assert entry.tokenizer_path() == tmp_path / "tokenizers/big"


def test_registering_makes_the_file(tmp_path):
    file = tmp_path / "deep" / "models.toml"
    register(file, "smollm2-135m", tmp_path / 'odd "name" é')
    assert load_registry(file).resolve("smollm2-135m").path == tmp_path / 'odd "name" é'
    assert file.stat().st_mode & 0o777 == 0o644
    assert [entry.name for entry in file.parent.iterdir()] == ["models.toml"]


def test_registering_leaves_the_rest_alone(file, tmp_path):
    register(file, "new", tmp_path / "new")
    text = file.read_text()
    assert text.startswith(GOOD)
    assert load_registry(file).aliases == ("Big-1.5", "new", "small")
    register(file, "small", tmp_path / "moved")
    assert load_registry(file).resolve("small").path == tmp_path / "moved"
    assert load_registry(file).resolve("Big-1.5").hub_id == "org/name"
    before = file.stat().st_mtime_ns
    register(file, "small", tmp_path / "moved")
    assert file.stat().st_mtime_ns == before


def test_registering_never_loses_another_entry(file, tmp_path):
    text = '[models]\na = {path = "x"}\nb = {path = "y"}\n'
    file.write_text(text)
    with pytest.raises(HemostatError) as caught:
        register(file, "a", tmp_path / "z")
    assert caught.value.code is ErrorCode.MODELS_FILE_INVALID
    assert file.read_text() == text


def test_an_invalid_alias_is_not_registered(file, tmp_path):
    with pytest.raises(HemostatError):
        register(file, "no spaces", tmp_path)
    assert file.read_text() == GOOD
