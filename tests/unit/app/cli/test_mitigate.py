"""`hemostat mitigate`: what it sends, what it leaves, and the command to repeat it."""

import copy
import shlex

from app.cli import submitting
from app.contracts.errors import ErrorCode, HemostatError
from tests.support.commands import run
from tests.support.mitigate_reports import mitigate_variants


def onwards_of(monkeypatch, line):
    found = []
    monkeypatch.setattr(submitting, "measure", lambda *_, onwards, **__: found.append(onwards))
    run(line)
    return found[0]


def reports():
    return copy.deepcopy(mitigate_variants())


class Files:
    """A service whose jobs have these files, and no others."""

    def __init__(self, files):
        self.files = files

    def artifacts(self, _):
        return {"data": [{"name": name} for name in self.files]}

    def artifact(self, _, name):
        raise HemostatError(ErrorCode.ARTIFACT_NOT_FOUND, f"there is no {name}")

    def save_artifact(self, _, name, destination):
        destination.write_text(self.files[name])


def test_the_recipe_is_saved_beside_the_page_and_the_commands_take_it(monkeypatch, tmp_path):
    monkeypatch.delenv("HEMOSTAT_URL", raising=False)
    onwards = onwards_of(monkeypatch, "mitigate -r a --recipe quantize.rtn:bits=4 --url http://127.0.0.1:9")
    report = reports()["helped"]
    lines = onwards(
        Files({"recipe.json": "[]", "README.md": "card", "treated.parquet": ""}), report, tmp_path / "p.html"
    )
    folder = tmp_path / "p_files"
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "recipe.json"]
    told = [shlex.split(line, comments=True) for line in lines if line.startswith("  hemostat ")]
    assert [words[1] for words in told] == ["compare", "deploy", "jobs"]
    for words in told[:2]:
        assert words[words.index("--recipe") + 1] == f"@{folder / 'recipe.json'}"
    assert all(words[-2:] == ["--url", "http://127.0.0.1:9"] for words in told)
    assert told[2][3] == report["job"]


def test_a_recipe_that_cannot_be_saved_is_told_and_how_to_fetch_it(monkeypatch, tmp_path):
    onwards = onwards_of(monkeypatch, "mitigate -r a --recipe quantize.rtn:bits=4")
    lines = onwards(Files({}), reports()["helped"], tmp_path / "p.html")
    assert lines[0].startswith("The recipe could not be saved: there is no ")
    assert lines[1].startswith("  hemostat jobs fetch ")
    assert onwards(Files({}), reports()["nothing"], tmp_path / "p.html") == []
