"""What the bench of serving writes down of itself."""

import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from tests.bench import processor, serve
from tests.bench.rows import Row, write
from tests.bench.serve import QUICK, Bench
from tests.bench.serve_shadow import ShadowBeside
from workers.engine.serving.child import ServerProcess

STOP, GO_ON = signal.SIGSTOP, signal.SIGCONT


def test_parts_are_not_put_beside_numbers_of_another_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "serve.csv", [Row("serve", "processor", "another", 2.0, "cores")])
    monkeypatch.setattr(serve, "RESULTS", tmp_path / "serve.csv")
    monkeypatch.setattr(processor, "here", lambda *_: Row("serve", "processor", "this one", 2.0, "cores"))
    monkeypatch.setattr(sys, "argv", ["serve", "executors"])
    with pytest.raises(SystemExit):
        serve.main()
    assert "are not from this one: measure all parts" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("gone", "sent"),
    [
        ((), [(1, STOP), (3, STOP), "asked", (1, GO_ON), (3, GO_ON)]),
        (((3, STOP),), [(1, STOP), (1, GO_ON)]),
        (((1, GO_ON),), [(1, STOP), (3, STOP), "asked", (3, GO_ON)]),
    ],
    ids=["all are there", "one cannot be stopped", "one has ended meanwhile"],
)
def test_servers_that_were_stopped_go_on_whatever_becomes_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: tuple[tuple[int, int], ...], sent: list[object]
) -> None:
    seen: list[object] = []

    def send(group: int, what: int) -> None:
        if (group, what) in gone:
            raise ProcessLookupError
        seen.append((group, what))

    monkeypatch.setattr("os.killpg", send)
    bench = Bench(QUICK, tmp_path, Row("serve", "processor", "this one", 2.0, "cores"))
    servers = [cast(ServerProcess, SimpleNamespace(pid=pid)) for pid in (1, 2, 3)]
    monkeypatch.setattr(bench, "_servers", servers)
    try:
        with bench._alone(servers[1]):
            seen.append("asked")
    except ProcessLookupError:
        assert gone == ((3, STOP),)
    assert seen == sent


async def test_a_shadow_computes_beside_the_server_that_it_belongs_to_and_never_beside_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    shadow = cast(
        ShadowBeside, SimpleNamespace(stop=lambda: seen.append("stopped"), go_on=lambda: seen.append("computes"))
    )
    monkeypatch.setattr("os.killpg", lambda *_: None)
    bench = Bench(QUICK, tmp_path, Row("serve", "processor", "this one", 2.0, "cores"))

    async def drawn(name: str, tokens: float) -> float:
        seen.append(name)
        return tokens

    plain, ours = (cast(ServerProcess, SimpleNamespace(pid=pid)) for pid in (1, 2))
    await bench.ratio("case", (plain, lambda: drawn("plain", 50.0)), (ours, lambda: drawn("ours", 40.0)), shadow)
    without, beside = ["stopped", "plain", "computes"], ["computes", "ours", "computes"]
    assert seen == 2 * (without + beside)  # the first pair warms up
    assert bench.rows[1] == Row("serve", "case", "throughput_ratio", 0.8, "ratio")
