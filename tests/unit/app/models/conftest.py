import pytest

from app.settings import Settings
from tests.support.asked import registry_of
from tests.support.copies import copier


@pytest.fixture
def copy(tiny, tmp_path):
    """A tiny checkpoint of one's own, to be broken."""
    return copier(tiny, tmp_path)


@pytest.fixture
def text_root(tmp_path):
    root = tmp_path / "texts"
    (root / "many/.hidden").mkdir(parents=True)
    (root / "one.txt").write_text("x" * 400)
    (root / "notes.md").write_text("x")
    (root / "many/a.txt").write_text("x" * 400)
    (root / "many/b.jsonl").write_text('{"id": "1", "text": "' + "x" * 379 + '"}')
    (root / "many/.hidden/c.txt").write_text("x" * 4000)
    (root / "empty").mkdir()
    return root


@pytest.fixture
def settings(tmp_path, text_root):
    return Settings(home=tmp_path / "home", text_root=text_root)


@pytest.fixture
def registry(tmp_path, tiny, copy):
    other = copy("llama-untied", name="other-tokens")
    file = other / "tokenizer.json"
    file.write_text(file.read_text().replace('"add_prefix_space": false', '"add_prefix_space": true', 1))
    broken = copy("llama", name="broken")
    (broken / "model.safetensors").write_bytes(b"")
    mute = copy("llama", name="mute")
    (mute / "chat_template.jinja").unlink()
    folders = {
        "llama": tiny(),
        "untied": tiny("llama-untied"),
        "padded": tiny("llama-padded"),
        "other-tokens": other,
        "broken": broken,
        "gone": tmp_path / "gone",
        "mute": mute,
    }
    return registry_of(tmp_path / "models.toml", folders)


@pytest.fixture
def alone(tmp_path, tiny):
    """A registry of one model, llama."""
    return registry_of(tmp_path / "models.toml", {"llama": tiny()})
