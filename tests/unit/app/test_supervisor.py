import os
import signal
import sys
import threading
import time

from app.settings import Settings
from app.supervisor import MAX_LOG_BYTES, Interruptions, Program, Supervisor, environment_of


def program(tmp_path, code):
    """A program that runs `code`."""
    (tmp_path / "deed.py").write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    return Program("deed", ("deed",), environment, tmp_path / "logs" / "deed.log")


def wait_for_output(subject, text):
    deadline = time.monotonic() + 60
    while text not in subject.last_lines():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_settings_reach_another_process_whole(monkeypatch, tmp_path):
    monkeypatch.setenv("HEMOSTAT_PORT", "1")
    monkeypatch.setenv("HEMOSTAT_TEXT_ROOT", "/somewhere")
    monkeypatch.setenv("HEMOSTAT_API_KEY", "of the client, not a setting")
    settings = Settings(home=tmp_path, port=4711, text_root=None, engine_compile=True, redelivery_s=1.5)
    environment = environment_of(settings)
    for name in list(os.environ):
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert Settings() == settings
    assert environment["HEMOSTAT_API_KEY"] == "of the client, not a setting"


def test_what_ends_is_started_again_after_a_growing_pause(tmp_path, monkeypatch):
    monkeypatch.setattr("app.supervisor.FIRST_PAUSE_S", 0.05)
    said: list[str] = []
    subject = program(tmp_path, "raise SystemExit(3)")
    supervisor = Supervisor([subject], said.append)
    supervisor.start()
    deadline = time.monotonic() + 120
    while sum("started again in" in line for line in said) < 3:
        supervisor.tend()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    supervisor.kill()
    pauses = [line for line in said if "started again in" in line]
    assert pauses == [f"the deed ended with status 3; it is started again in {pause:g} s" for pause in (0.05, 0.1, 0.2)]
    assert any(str(subject.log) in line for line in said)


def test_a_deaf_program_is_killed_when_time_is_up(tmp_path):
    said: list[str] = []
    subject = program(
        tmp_path, "import signal, time\nsignal.signal(15, signal.SIG_IGN)\nprint('up', flush=True)\ntime.sleep(600)"
    )
    supervisor = Supervisor([subject], said.append)
    supervisor.start()
    wait_for_output(subject, "up")
    begun = time.monotonic()
    supervisor.stop([subject], 0.3, Interruptions())
    assert time.monotonic() - begun >= 0.3
    assert not subject.running
    assert said == ["the deed does not end; it is killed"]


def test_interruptions_before_the_end_of_all_hurry_it(tmp_path):
    """As where the API ends first, and the person is impatient already then."""
    code = (
        # A second signal may come while the first is told, and print cannot be entered twice.
        "import os, signal, time\n"
        "def note(number, _):\n    os.write(1, f'told {number}\\n'.encode())\n"
        "signal.signal(15, note)\nsignal.signal(2, note)\nprint('up', flush=True)\n"
        "while True: time.sleep(0.01)"
    )
    subject = program(tmp_path, code)
    supervisor = Supervisor([subject], lambda _: None)
    supervisor.start()
    wait_for_output(subject, "up")
    interruptions = Interruptions()
    interruptions.count = 1

    def interrupt():
        wait_for_output(subject, "told 2")
        wait_for_output(subject, "told 15")
        interruptions.count = 2

    person = threading.Thread(target=interrupt)
    person.start()
    supervisor.stop([subject], 120, interruptions)
    person.join()
    assert interruptions.count == 2
    assert subject.process is not None
    assert subject.process.returncode == -signal.SIGKILL


def test_signals_act_as_before_after_the_block():
    before = signal.getsignal(signal.SIGINT)
    with Interruptions() as interruptions:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        assert interruptions.count == 2
    assert signal.getsignal(signal.SIGINT) is before


def test_a_log_that_grows_too_long_is_put_aside_while_its_process_writes(tmp_path):
    lines = "import itertools, time\nfor n in itertools.count(): print(n, 'x' * 100_000, flush=True); time.sleep(0.001)"
    subject = program(tmp_path, lines)
    assert subject.log is not None
    supervisor = Supervisor([subject], print)
    supervisor.start()
    aside = subject.log.with_suffix(".log.1")
    try:
        for turn in range(2):
            first = aside.read_text().split(maxsplit=1)[0] if turn else ""
            deadline = time.monotonic() + 120
            while not aside.exists() or aside.read_text().split(maxsplit=1)[0] == first:
                supervisor.tend()
                assert time.monotonic() < deadline
                time.sleep(0.05)
        assert subject.running
        assert aside.stat().st_size > MAX_LOG_BYTES
        assert b"\0" not in subject.log.read_bytes(), "it goes on at the beginning of the file"
    finally:
        supervisor.kill()


def test_a_program_gets_its_interpreter_from_here(tmp_path):
    subject = program(tmp_path, "import sys; print(sys.executable, flush=True)")
    subject.start()
    assert subject.process is not None
    subject.process.wait(60)
    assert subject.last_lines() == sys.executable
