import os
import signal

import pytest
from typer.core import TyperGroup
from typer.testing import CliRunner

from app.cli.interruption import Terminated, raise_on_sigterm
from app.cli.main import app, main


@pytest.mark.parametrize(("interruption", "status"), [(KeyboardInterrupt, 130), (Terminated, 143)])
@pytest.mark.parametrize("arguments", [["demo"], ["jobs", "watch", "diag_1"]])
def test_a_command_that_is_interrupted_ends_with_the_status_of_the_signal(
    monkeypatch, recorder, arguments, interruption, status
):
    recorder.answer = {"status": "alive"}
    monkeypatch.setenv("HEMOSTAT_URL", recorder.url)

    def interrupted(*_, **__):
        raise interruption

    monkeypatch.setattr("app.cli.main.demo_command.demo", interrupted)
    monkeypatch.setattr("app.cli.jobs.follow", interrupted)
    assert CliRunner().invoke(app, arguments).exit_code == status


@pytest.mark.usefixtures("signals_as_before")
def test_a_command_line_that_is_interrupted_while_it_is_read_ends_so_too(monkeypatch):
    def interrupted(*_, **__):
        raise Terminated

    monkeypatch.setattr(TyperGroup, "make_context", interrupted)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 143


@pytest.mark.usefixtures("signals_as_before")
def test_sigterm_is_cleaned_up_after_as_ctrl_c_is():
    raise_on_sigterm()
    with pytest.raises(KeyboardInterrupt) as caught:
        os.kill(os.getpid(), signal.SIGTERM)
    assert caught.type is Terminated


@pytest.mark.usefixtures("signals_as_before")
def test_a_second_sigterm_breaks_off_nothing_and_ctrl_c_still_does():
    raise_on_sigterm()
    with pytest.raises(Terminated):
        os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt) as caught:
        os.kill(os.getpid(), signal.SIGINT)
    assert caught.type is KeyboardInterrupt
