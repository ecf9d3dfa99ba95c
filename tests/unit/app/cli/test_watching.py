import io
import os
import signal

import pytest
from rich.console import Console

from app.cli.client import Client
from app.cli.interruption import Terminated, raise_on_sigterm
from app.cli.watching import run_to_end


class Interrupted(Client):
    """A service whose job runs for ever: `first` comes while it is watched, `second` while it is being cancelled."""

    def __init__(self, first, second, *, own=False):
        super().__init__("http://127.0.0.1:1", own=own)
        self.first, self.second = first, second
        self.cancelled = False

    def submit(self, request):
        return {"id": "diag_1"} | request

    def watch(self, job_id, away=None):
        yield "log", {"message": "it runs"}
        os.kill(os.getpid(), self.first)

    def queue(self, job_id):
        return {"before": 0, "first": []}

    def cancel(self, job_id):
        os.kill(os.getpid(), self.second)
        self.cancelled = True
        return {"id": job_id}

    def job(self, job_id):
        return {"id": job_id, "status": "cancelled" if self.cancelled else "running"}


@pytest.mark.usefixtures("signals_as_before")
@pytest.mark.parametrize(("first", "raised"), [(signal.SIGTERM, Terminated), (signal.SIGINT, KeyboardInterrupt)])
def test_a_job_is_cancelled_whatever_sigterm_comes_meanwhile(first, raised):
    raise_on_sigterm()
    said = io.StringIO()
    client = Interrupted(first, signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt) as caught:
        run_to_end(client, {}, Console(file=said, width=200))
    assert caught.type is raised
    assert client.cancelled
    assert said.getvalue().splitlines()[-1] == "diag_1 is cancelled"


@pytest.mark.usefixtures("signals_as_before")
@pytest.mark.parametrize("own", [False, True])
def test_a_second_ctrl_c_breaks_the_cancelling_off_and_it_is_said(own):
    raise_on_sigterm()
    said = io.StringIO()
    client = Interrupted(signal.SIGINT, signal.SIGINT, own=own)
    with pytest.raises(KeyboardInterrupt):
        run_to_end(client, {}, Console(file=said, width=200))
    assert not client.cancelled
    last = said.getvalue().splitlines()[-1]
    assert "`hemostat jobs cancel diag_1`" in last
    assert ("`hemostat up`" in last) == own, "a service that ends with the command has to be started again"


class Done(Client):
    """A service whose job is over at once."""

    def __init__(self):
        super().__init__("http://127.0.0.1:1")

    def submit(self, request):
        return {"id": "diag_1"} | request

    def watch(self, job_id, away=None):
        yield "end", {"status": "succeeded"}

    def queue(self, job_id):
        return {"before": 0, "first": []}

    def job(self, job_id):
        return {"id": job_id, "status": "succeeded", "started_at": 1000.0, "finished_at": 1115.0}


@pytest.mark.parametrize("own", [False, True])
def test_ctrl_c_while_the_job_is_sent_says_that_it_may_have_been_taken(own):
    class Sending(Client):
        def submit(self, request):
            raise KeyboardInterrupt

    said = io.StringIO()
    with pytest.raises(KeyboardInterrupt):
        run_to_end(Sending("http://127.0.0.1:1", own=own), {}, Console(file=said, width=200))
    assert "`hemostat jobs list`" in said.getvalue()
    assert ("`hemostat up`" in said.getvalue()) == own


def test_a_job_that_succeeded_says_how_long_it_took_in_all():
    said = io.StringIO()
    run_to_end(Done(), {}, Console(file=said, width=200))
    assert said.getvalue().splitlines()[-1] == "job diag_1 took 1 min 55 s in all"
