"""What vLLM does to the collector, on whichever device its worker runs."""

import gc
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import vllm

from workers.engine.isolation import alone_in_the_process
from workers.engine.launch import load_vllm


@pytest.fixture(scope="module")
def modules() -> list[ModuleType]:
    load_vllm()
    import_module("vllm.v1.worker.gpu_worker")
    return [module for name, module in list(sys.modules.items()) if name.partition(".")[0] == "vllm"]


@pytest.fixture
def shown() -> Iterator[None]:
    """Whatever a failure hides from the collector is shown again."""
    yield
    gc.unfreeze()


def test_no_name_of_vllm_hides_the_heap_while_an_engine_starts(modules: list[ModuleType], shown: None) -> None:
    from vllm.utils import gc_utils

    bound = [
        (module.__name__, name)
        for module in modules
        for name, value in vars(module).items()
        if value is gc_utils.freeze_gc_heap
    ]
    assert {"vllm.v1.engine.core", "vllm.v1.worker.gpu_worker"} <= {module for module, _ in bound}
    before = gc.get_freeze_count()
    for module, name in bound:
        with alone_in_the_process():
            getattr(sys.modules[module], name)()
        assert gc.get_freeze_count() == before, (module, name)
    with alone_in_the_process(), gc_utils.freeze_gc_for_cudagraph_capture():
        assert gc.get_freeze_count() == before
    assert gc.isenabled()


def test_afterwards_the_collector_is_as_before(modules: list[ModuleType]) -> None:
    real = gc.freeze, gc.unfreeze
    with alone_in_the_process():
        assert (gc.freeze, gc.unfreeze) != real
    assert (gc.freeze, gc.unfreeze) == real


def test_every_call_of_vllm_goes_through_the_module_whose_names_are_replaced() -> None:
    sources = list(Path(vllm.__path__[0]).rglob("*.py"))
    assert len(sources) > 2000
    assert not [path for path in sources if "from gc import" in path.read_text(encoding="utf-8")]
