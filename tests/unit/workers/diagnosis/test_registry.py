import ast
import importlib.util
import subprocess
import sys
from pathlib import Path
from pkgutil import resolve_name

import pytest
from pydantic import ValidationError

from app.kinds.compare.request import CompareRequest
from app.kinds.registry import KINDS
from workers.diagnosis.registry import HANDLERS


def test_every_name_in_the_registry_is_defined():
    """Read from the source: importing it takes torch, and seconds."""
    named = [
        name for kind in KINDS.values() for name in (kind.handler, kind.helper, kind.check, kind.cost, kind.answer)
    ]
    missing = []
    for name in filter(None, [*named, HANDLERS.room]):
        module, _, attribute = name.partition(":")
        tree = ast.parse(Path(importlib.util.find_spec(module).origin).read_text(encoding="utf-8"))
        if attribute not in {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}:
            missing.append(name)
    assert missing == []


def test_a_handler_is_imported_by_its_name():
    assert resolve_name("workers.diagnosis.registry:HANDLERS") is HANDLERS


def test_a_request_is_validated_as_its_kind():
    request = {"kind": "compare", "reference": {"model": "a"}, "candidate": {"model": "b"}}
    assert isinstance(HANDLERS.request("compare", request), CompareRequest)
    with pytest.raises(ValidationError):
        HANDLERS.request("compare", request | {"typo": 1})
    with pytest.raises(KeyError):
        HANDLERS.request("compose", request)


def test_the_parent_process_imports_neither_torch_nor_an_engine():
    """And the child imports them only when it opens the room."""
    code = (
        "import sys, workers.main, workers.process.child; "
        "print([name for name in ('torch', 'vllm', 'transformers', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
