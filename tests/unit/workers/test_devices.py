"""What computes is given its device: with a default of "cpu" a GPU would idle unseen."""

import ast
from pathlib import Path

import workers

ROOT = Path(workers.__file__).parent


def defaults(file: Path) -> list[str]:
    """The lines of parameters called `device` that have a default."""
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.arguments):
            plain = [*node.posonlyargs, *node.args]
            with_default = plain[len(plain) - len(node.defaults) :] if node.defaults else []
            named = [one for one, value in zip(node.kwonlyargs, node.kw_defaults, strict=True) if value is not None]
            found += [f"{file.name}:{one.lineno}" for one in (*with_default, *named) if one.arg == "device"]
    return found


def test_a_default_is_found(tmp_path: Path) -> None:
    file = tmp_path / "made.py"
    file.write_text('def f(device, *, dtype=None): ...\ndef g(x, device="cpu"): ...\ndef h(*, device=None): ...\n')
    assert defaults(file) == ["made.py:2", "made.py:3"]


def test_no_device_has_a_default() -> None:
    files = list(ROOT.rglob("*.py"))
    assert ROOT / "surgery" / "recipe.py" in files
    assert [line for file in files for line in defaults(file)] == []
