import os

import pytest

from app.cli.output import Exit, exit_of
from app.contracts.errors import ErrorCode, HemostatError
from app.models.registry import load_registry, register, settings_of
from app.settings import Settings

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


def refused(call, *given, code=ErrorCode.MODELS_FILE_INVALID, **more):
    with pytest.raises(HemostatError) as caught:
        call(*given, **more)
    assert caught.value.code is code
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
    file.write_text(f'[models.a]\npath = "{tmp_path}/elsewhere"\n')
    assert load_registry(file).resolve("a").path == tmp_path / "elsewhere"


def test_an_unknown_alias_is_told_with_the_nearest(file):
    error = refused(load_registry(file).resolve, "smal", pointer="/reference/model", code=ErrorCode.UNKNOWN_MODEL)
    assert (error.status, error.pointer) == (404, "/reference/model")
    assert "'small'" in error.hint


def test_a_changed_file_is_read_again_and_an_unchanged_one_is_not(file):
    first = load_registry(file)
    assert load_registry(file) is first
    stat = file.stat()
    file.write_text(GOOD.replace("models.small", "models.other"))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert load_registry(file).aliases == ("Big-1.5", "other")


def test_what_does_not_fit_is_told_with_line_and_advice(file, tmp_path):
    file.write_bytes(b"\xff\xfe\x00")
    refused(load_registry, file)
    wrong = []
    for text, line, hint in (
        ('[models.a]\npath = "x\n', 2, ""),
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
    ):
        file.write_text(text)
        error = refused(load_registry, file)
        named = f"line {line}" in error.detail if line else "line" not in error.detail
        if not (named and hint in error.hint and str(file) in error.detail):
            wrong.append((text, error.detail, error.hint))
    assert wrong == []


def test_without_a_file_no_alias_is_known_and_the_hint_says_how_to_get_one(tmp_path):
    error = refused(load_registry, tmp_path / "none.toml", code=ErrorCode.UNKNOWN_MODEL)
    assert exit_of(error) is Exit.REFUSED
    assert [
        way for way in ("`hemostat demo`", "`hemostat models add ", "HEMOSTAT_MODELS") if way not in error.hint
    ] == []


def test_a_file_that_may_not_be_looked_at_is_no_missing_file(tmp_path):
    loop = tmp_path / "loop.toml"
    loop.symlink_to(loop)
    assert "loop.toml" in refused(load_registry, loop).detail


def test_a_hub_id_leads_to_the_local_cache(file, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    entry = load_registry(file).resolve("Big-1.5")
    error = refused(entry.checkpoint_path, code=ErrorCode.CHECKPOINT_NOT_FOUND)
    assert "hf download org/name --revision abc123" in error.hint
    snapshot = tmp_path / "hub/models--org--name/snapshots/abc123"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    assert entry.checkpoint_path() == snapshot


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
    refused(register, file, "no spaces", tmp_path)
    assert file.read_text() == GOOD
    text = '[models]\na = {path = "x"}\nb = {path = "y"}\n'
    file.write_text(text)
    refused(register, file, "a", tmp_path / "z")
    assert file.read_text() == text


def test_folders_of_a_model_and_of_its_tokenizer_must_be_there(file, tmp_path):
    registry, absent = load_registry(file), ErrorCode.CHECKPOINT_NOT_FOUND
    small, big = registry.resolve("small"), registry.resolve("Big-1.5")
    assert refused(small.checkpoint_path, pointer="/candidate/model", code=absent).pointer == "/candidate/model"
    (tmp_path / "checkpoints/small").mkdir(parents=True)
    assert small.checkpoint_path() == small.tokenizer_path() == tmp_path / "checkpoints/small"
    refused(big.tokenizer_path, code=absent)
    (tmp_path / "tokenizers/big").mkdir(parents=True)
    assert big.tokenizer_path() == tmp_path / "tokenizers/big"


def test_a_model_has_sizes_of_its_own_and_else_those_of_the_settings(file):
    file.write_text(GOOD + '[models.large]\npath = "large"\ntensor_parallel_size = 4\n')
    settings = Settings(models=file, tensor_parallel_size=2, pipeline_parallel_size=3)
    large, small = settings_of(settings, "large"), settings_of(settings, "small")
    assert (large.tensor_parallel_size, large.pipeline_parallel_size) == (4, 3)
    assert (small.tensor_parallel_size, small.pipeline_parallel_size) == (2, 3)


@pytest.mark.parametrize("size", ["0", '"2"', "true", "1.0"])
def test_a_size_is_a_whole_number_from_1(file, size):
    file.write_text(f'[models.a]\npath = "x"\ntensor_parallel_size = {size}\n')
    assert "line 3: models.a.tensor_parallel_size" in refused(load_registry, file).detail
