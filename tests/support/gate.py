"""How the tests are run: what each needs, which run in one process, in which order, and what each file took.

Marks are set here and nowhere else. `make test` leaves out what is `slow`; `make test-all` runs all that this machine
can run.
"""

import gc
import json
import os
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

TESTS = Path(__file__).resolve().parents[1]
# What a file took when this was last measured; `cp .cache/durations.json tests/durations.json` after `make test-all`.
MEASURED = TESTS / "durations.json"
WRITTEN = Path(os.environ.get("HEMOSTAT_TEST_DURATIONS", TESTS.parent / ".cache" / "durations.json"))
TIMEOUT_OF_ENGINES_S = 600

# Mark → beginnings of names below tests/, as regular expressions.
MARKS = {
    "engine": (
        r"e2e/(?!.*_browser)",
        r"gpu/test_(batch_invariance|engine)",
        r"integration/(bench|deploy|examples)/",
        r"integration/test_golden_home",
        r"integration/app/gateway/",
        r"integration/app/jobs/test_gone\.py::test_no_kind",
        r"integration/workers/(decoding|diagnosis|distributions|engine|measuring|shadow|verified)/",
        r"integration/workers/calibration/test_job",
        r"integration/workers/mitigation/repair/test_adapter_vllm",
        r"integration/workers/surgery/test_(extended|prune)_served",
        r"integration/workers/text/test_self_corpus",
    ),
    "process": (r"integration/(app|deploy)/", r"integration/workers/(process|shadow|verified)/", r"e2e/(?!.*_browser)"),
    "browser": (r"e2e/.*_browser",),
    "gpu": (r"gpu/",),
    "slow": (
        # Benches and the paper's page: no part of the product.
        r"unit/(bench|examples)/",
        r"integration/(bench|examples)/",
        # Tests that are for another machine.
        r"integration/test_gpu_tests",
        # Memory of the whole process, which others share.
        r"unit/workers/surgery/test_walking\.py::.*memory",
        r"unit/app/models/test_looking\.py::.*of memory",
        r"integration/app/gateway/test_slow_readers\.py::test_slow_readers_stop",
        r"integration/workers/distributions/test_memory",
        # Fits of many resamplings, ten seconds each and more.
        r"unit/workers/analysis/threshold/test_answer\.py::test_(a_curve_of_the_form_itself|documents_say_how_far)",
        r"unit/workers/analysis/threshold/test_answer\.py::test_(few_documents_that_bend|dense_gives)",
        r"unit/workers/analysis/threshold/test_missed\.py::test_at_least_95.*grows",
        # Every pair of steps, and other architectures.
        r"unit/workers/surgery/test_composition\.py::test_any_two_steps",
        r"unit/workers/mitigation/dynamic_scaling/test_step\.py::test_blocks_that_are_fitted.*(qwen2|gemma2)",
        r"integration/workers/engine/test_packed_dynamic\.py::.*(qwen2|gemma2)",
        r"integration/workers/engine/test_float32_products\.py::.*bit_for_bit.*(untied|qwen2|granite)",
        r"integration/workers/mitigation/repair/test_adapter_vllm\.py::.*(qwen2|gemma2)",
        # Other processors, emulated: each compiles everything anew.
        r"integration/workers/distributions/test_self_divergence\.py::.*\[(?!this one)",
        # A search with a fresh seed.
        r"integration/app/test_fuzz\.py::test_other",
        # Whole scripts of users: the demo, the comparison and two pages stand for them in the gate.
        r"e2e/(?!test_cli\.py::test_the_demo|test_compare\.py|test_pages_browser\.py::.*(compare|sweep)|test_home_browser)",
        # Services that are hurt or flooded: what starts, ends and restarts them stays.
        r"integration/app/test_(watched|flood|hostile|hostile_models)\.py",
        r"integration/app/test_up\.py::(?!test_it_serves_it_restarts|test_ctrl_c)",
        r"integration/app/cli/test_(keys|flips_sweep|service_in_use)\.py",
        r"integration/app/deployments/test_profiles_cli\.py",
        r"integration/app/deployments/test_agent\.py::(?!test_it_starts)",
        r"integration/app/gateway/test_(full_redis|verified|javascript_client)\.py",
        # Jobs and stores that are hurt at many places: one of each stays.
        r"integration/app/jobs/test_(store_states\.py|gone\.py::(?!.*succeeded)|diff\.py::(?!.*(command_line|owner)))",
        r"integration/workers/process/test_chaos\.py::(?!test_a_killed_workers_job|test_a_worker_that_was_frozen|test_a_drain_lets)",
        r"integration/workers/process/test_yielding\.py::(?!test_a_fit_makes_way)",
        r"integration/workers/process/test_helping\.py::(?!test_two_workers)",
        r"integration/workers/process/test_hanging\.py::(?!test_a_job_that_hangs.*\[hang\])",
        # Replicas, shadows and verifiers that are hurt: one that works stays.
        r"integration/workers/engine/serving/test_(odd_requests|plain_products)\.py",
        r"integration/workers/engine/serving/test_serve\.py::(?!test_a_promoted|test_what_cannot)",
        r"integration/workers/(shadow|verified)/(?!.*(test_worse_weights|test_answers_follow))",
        # Jobs of every kind: one that is whole stays for each.
        r"integration/workers/diagnosis/(test_overlap_told|test_compare_classes|sweep/test_tasks)\.py",
        r"integration/workers/diagnosis/tasks/test_job\.py::(?!test_every_task)",
        r"integration/workers/diagnosis/sweep/test_job\.py::(?!test_every_value)",
        r"integration/workers/diagnosis/mitigate/test_job\.py::(?!test_something_helps)",
        r"integration/workers/diagnosis/trajectory/test_job\.py::(?!test_every_decoder)",
        r"integration/workers/diagnosis/attribute/test_job\.py::(?!test_the_module_that_was_hurt)",
        # Engines of other forms, dtypes and architectures: llama stays.
        r"integration/workers/engine/test_(norms|process|sampling)\.py",
        r"integration/workers/engine/test_simulation\.py::(?!.*(activations_are.*llama-step1|keys_and.*llama-step0))",
        r"integration/workers/engine/test_blocks\.py::.*\[(?!.*llama)",
        r"integration/workers/engine/test_packed_recipes\.py::(?!.*four_bit_weights\[llama)",
        r"integration/workers/engine/test_swap\.py::(?!.*bit_for_bit.*llama-None)",
        r"integration/workers/engine/test_room\.py::(?!.*(two_kinds_of_engine|counted))",
        r"integration/workers/engine/test_logprobs\.py::(?!.*llama-padded)",
        r"integration/workers/distributions/test_compiled\.py",
        r"integration/workers/distributions/test_head_engine\.py::.*\[(?!llama)",
        r"integration/workers/surgery/test_(recipe|extended_served)\.py",
        r"integration/workers/text/test_self_corpus\.py",
    ),
}
# Tests that share servers and engines that take long to start.
SHARING = (
    r"integration/app/gateway/",
    r"integration/deploy/",
    r"integration/workers/distributions/",
    r"integration/workers/engine/",
    r"e2e/(?!.*_browser|test_(calibrated_endpoint|chaos|interruption|mitigate_deploy|shared_sweep))",
)
# Seconds that a test is taken for until its file has been measured.
_GUESS_S = {"engine": 6.0, "process": 2.0}
_PATTERNS = {mark: re.compile("|".join(f"(?:{one})" for one in ways)) for mark, ways in MARKS.items()}


# --- marks, groups, order


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Thousands of tests live to the end: the collector of garbage need not look at them, least of all as they come.
    An engine that starts and ends calls it seven times."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        _mark(config, item)
    seconds = _seconds(items)
    items.sort(key=lambda item: (-seconds[_group(_file(item))], _group(_file(item))))


class _Scheduling(LoadScopeScheduling):  # type: ignore[misc] # xdist ships no types
    """Tests of a group run in one process. xdist's own groups do nothing under pytest 9: ids of items are fixed."""

    def _split_scope(self, nodeid: str) -> str:
        return _group(nodeid.partition("::")[0])


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    return _Scheduling(config, log)


def _group(file: str) -> str:
    """What runs in one process with a file: those whose costly fixtures it shares, or the file alone."""
    return next((pattern for pattern in SHARING if re.match(f"tests/{pattern}", file)), file)


def _file(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]


def _mark(config: pytest.Config, item: pytest.Item) -> None:
    name = item.nodeid.removeprefix("tests/")
    marks = {mark for mark, pattern in _PATTERNS.items() if pattern.match(name)}
    for mark in marks:
        item.add_marker(mark)
    if "engine" in marks and item.get_closest_marker("timeout") is None:
        item.add_marker(pytest.mark.timeout(TIMEOUT_OF_ENGINES_S))
    if "slow" not in marks and marks & {"engine", "process"} and config.pluginmanager.hasplugin("rerunfailures"):
        item.add_marker(pytest.mark.flaky(reruns=1))
    if "gpu" in marks and gpu_tests_device() == "cuda" and not _has_gpu():
        item.add_marker(pytest.mark.skip(reason="no CUDA device is here"))


def gpu_tests_device() -> str:
    """Where tests/gpu computes: on CUDA. HEMOSTAT_TEST_DEVICE=cpu shows without one that the tests themselves work."""
    return os.environ.get("HEMOSTAT_TEST_DEVICE", "cuda")


@cache
def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _seconds(items: list[pytest.Item]) -> dict[str, float]:
    measured = json.loads(MEASURED.read_text()) if MEASURED.exists() else {}
    files: dict[str, float] = defaultdict(float)
    for item in items:
        marks = [_GUESS_S[mark] for mark in _GUESS_S if item.get_closest_marker(mark)]
        files[_file(item)] += max(marks, default=0.1)
    total: dict[str, float] = defaultdict(float)
    for file, guess in files.items():
        total[_group(file)] += measured[file]["seconds"] if file in measured else guess
    return total


# --- what each file took

_counted = {"engine starts": 0, "processes": 0}


def _audit(event: str, _: tuple[Any, ...]) -> None:
    if event == "subprocess.Popen":
        _counted["processes"] += 1


def _counting(start: Callable[..., Any]) -> Callable[..., Any]:
    def counting(*given: Any, **named: Any) -> Any:
        _counted["engine starts"] += 1
        return start(*given, **named)

    counting.counted = True  # type: ignore[attr-defined]
    return counting


class Took:
    """Of each file: seconds, engines started in the process of the tests, processes started from it."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, float]] = {}

    def add(self, report: pytest.TestReport) -> None:
        file = self.files.setdefault(report.nodeid.partition("::")[0], {"seconds": 0.0})
        file["seconds"] += report.duration
        if report.when == "teardown":
            for name, value in report.user_properties:
                if name in _counted:
                    file[name] = file.get(name, 0) + int(str(value))

    def write(self, to: Path) -> None:
        """Beside what others wrote: a run of the unit tests keeps what a run of the others measured."""
        known = json.loads(to.read_text()) if to.exists() else {}
        known |= {file: values | {"seconds": round(values["seconds"], 1)} for file, values in self.files.items()}
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")


_took = Took()


def pytest_sessionstart() -> None:
    sys.addaudithook(_audit)


def pytest_runtest_setup() -> None:
    launch: Any = sys.modules.get("workers.engine.launch")
    if launch is not None and not hasattr(launch.start, "counted"):
        launch.start = _counting(launch.start)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    try:
        return (yield)
    finally:
        item.user_properties[:] = [(name, count) for name, count in _counted.items() if count]
        _counted.update(dict.fromkeys(_counted, 0))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _took.add(report)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        return
    passed = {report.nodeid for report in terminalreporter.stats.get("passed", [])}
    for report in terminalreporter.stats.get("rerun", []):
        outcome = "FLAKY" if report.nodeid in passed else "RED TWICE"
        first = getattr(report.longrepr, "reprcrash", None)
        terminalreporter.write_line(f"{outcome} {report.nodeid}; first: {first}")
    if not _took.files:
        return
    _took.write(WRITTEN)
    terminalreporter.section(f"the slowest files; all of them are in {WRITTEN}")
    for file, values in sorted(_took.files.items(), key=lambda one: -one[1]["seconds"])[:20]:
        others = ", ".join(f"{values[name]:.0f} {name}" for name in _counted if name in values)
        terminalreporter.write_line(f"{values['seconds']:7.1f} s  {file}  {others}")
    totals = {name: sum(values.get(name, 0) for values in _took.files.values()) for name in ("seconds", *_counted)}
    terminalreporter.write_line(", ".join(f"{value:.0f} {name}" for name, value in totals.items()) + " in all")
