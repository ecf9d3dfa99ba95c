"""One of the two processes that run and judge a program of a model; started by `runner`, never imported.

`program` runs the program and answers calls of one function of it. `check` runs the test: it asks the other process for
each call, and the result comes back as plain data. Only `check` holds the descriptor that takes the verdict, and it
never runs a line of the model. So whatever a program does to its own interpreter (frames, garbage collector, memory,
builtins, exit hooks), it changes nothing but what that function returns.

Each reads its source from standard input, gives up everything but computing, and says so before it runs anything. Needs
the standard library alone, imports nothing of ours, and imports what programs are likely to import before the doors are
shut.

What it gives up, for good: a seccomp filter that lets through the system calls of a list and fails every other one
with EPERM. No socket, no new process or thread, no signal to others, by whatever way. No file opened, to read or to
write, none created, renamed, removed or asked about. So it sees nothing of the machine, other processes' environments
included. Limits of time, memory and open files besides. What it can do: compute. Its input is empty, its output goes
to /dev/null.

Limits. The verdict is as good as the test: a program may recognize the inputs of the test and return its answers. A
test that catches every exception passes a program that ends itself within it. Arguments and results are copies of None,
numbers, strings, bytes, lists, tuples, sets and dicts, in which subclasses become these. A test that looks at other
objects or passes functions ends with TypeError. One that looks at a changed argument sees the old one. Names that
the test uses are those of the prompt as its authors wrote it. A fault in the kernel or in Python's JSON reader could
break the fence. Without a test a program is believed that it came to its end.
"""

import builtins
import ctypes
import importlib
import json
import os
import platform
import resource
import struct
import sys
from typing import Any

# Numbers of system calls by machine. Linux, arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic.
# fcntl is not among them: it can have the kernel signal another process. Nor is what takes a path.
_X86_64 = {
    "read": 0, "write": 1, "close": 3, "fstat": 5, "poll": 7, "lseek": 8, "mmap": 9, "mprotect": 10, "munmap": 11,
    "brk": 12, "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15, "readv": 19, "writev": 20, "select": 23,
    "sched_yield": 24, "mremap": 25, "madvise": 28, "nanosleep": 35, "getpid": 39, "exit": 60, "uname": 63,
    "gettimeofday": 96, "getrusage": 98, "sysinfo": 99, "times": 100, "getuid": 102, "getgid": 104, "geteuid": 107,
    "getegid": 108, "getppid": 110, "sigaltstack": 131, "arch_prctl": 158, "gettid": 186, "time": 201, "futex": 202,
    "sched_getaffinity": 204, "restart_syscall": 219, "clock_gettime": 228, "clock_getres": 229,
    "clock_nanosleep": 230, "exit_group": 231, "pselect6": 270, "ppoll": 271, "set_robust_list": 273,
    "getrandom": 318, "rseq": 334,
}  # fmt: skip
_AARCH64 = {
    "close": 57, "lseek": 62, "read": 63, "write": 64, "readv": 65, "writev": 66, "pselect6": 72, "ppoll": 73,
    "fstat": 80, "exit": 93, "exit_group": 94, "futex": 98, "set_robust_list": 99, "nanosleep": 101,
    "clock_gettime": 113, "clock_getres": 114, "clock_nanosleep": 115, "sched_getaffinity": 123, "sched_yield": 124,
    "restart_syscall": 128, "sigaltstack": 132, "rt_sigaction": 134, "rt_sigprocmask": 135, "rt_sigreturn": 139,
    "times": 153, "uname": 160, "getrusage": 165, "gettimeofday": 169, "getpid": 172, "getppid": 173, "getuid": 174,
    "geteuid": 175, "getgid": 176, "getegid": 177, "gettid": 178, "sysinfo": 179, "brk": 214, "munmap": 215,
    "mremap": 216, "mmap": 222, "mprotect": 226, "madvise": 233, "getrandom": 278, "rseq": 293,
}  # fmt: skip
_MACHINES = {"x86_64": (0xC000003E, _X86_64), "aarch64": (0xC00000B7, _AARCH64)}
# What a program may import: nothing can be read once the doors are shut. `socket`, `threading`, `ctypes` and `fcntl`
# are here so that what they would do is seen to fail.
_MODULES = """
abc array ast base64 binascii bisect calendar cmath collections collections.abc contextlib copy csv ctypes dataclasses
datetime _strptime decimal difflib enum fcntl fractions functools hashlib heapq hmac html inspect io itertools json
keyword linecache locale logging math numbers operator os pprint queue random re secrets socket statistics string struct
textwrap threading time timeit traceback tracemalloc types typing unicodedata urllib.parse uuid warnings weakref zlib
encodings.ascii encodings.cp1252 encodings.hex_codec encodings.idna encodings.latin_1 encodings.raw_unicode_escape
encodings.unicode_escape encodings.utf_16 encodings.utf_16_be encodings.utf_16_le encodings.utf_32 encodings.utf_8_sig
""".split()  # noqa: SIM905 - read more easily

_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_KILL, _DENY, _ALLOW = 0x80000000, 0x00050000 | 1, 0x7FFF0000
_NUMBER, _ARCHITECTURE = 0, 4  # offsets in struct seccomp_data


def rules() -> bytes:
    """The filter as BPF instructions. Raises KeyError on a machine that has no list."""
    architecture, calls = _MACHINES[platform.machine()]
    lines = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        # x32 calls of x86-64 carry this bit, and number otherwise.
        (_AT_LEAST, 0, 1, 0x40000000),
        (_RETURN, 0, 0, _DENY),
    ]
    for number in sorted(calls.values()):
        lines += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    lines.append((_RETURN, 0, 0, _DENY))
    return b"".join(struct.pack("=HBBI", *line) for line in lines)


def confine() -> None:
    """Puts the filter in place, for this process and for ever. Raises OSError if the kernel does not."""
    program = rules()
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(program, len(program))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))

    told = Program(len(program) // 8, ctypes.addressof(buffer))
    no_new_privileges, set_seccomp, filter_mode = 38, 22, 2
    for arguments in ((no_new_privileges, 1, 0, 0, 0), (set_seccomp, filter_mode, ctypes.byref(told), 0, 0)):
        if libc.prctl(*arguments) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))


def limit(cpu_s: int, memory_bytes: int) -> None:
    """Limits that hold whatever the filter lets through."""
    for what, most in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 64),
    ):
        resource.setrlimit(what, (most, most))
    # First comes SIGXCPU, which shows what it was; one that does not end by it is killed a second later.
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))


def kind(error: BaseException) -> str:
    """The nearest built-in class of an exception: names of others are the program's own words."""
    return next(str(one.__name__) for one in type(error).__mro__ if getattr(builtins, one.__name__, None) is one)


# --- values between the two processes

_MANY: dict[str, Any] = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "bytes": bytes,
    "bytearray": bytearray,
}


def packed(value: Any) -> Any:
    """The value for JSON. Raises TypeError for what is no plain data."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, complex):
        return ["complex", [value.real, value.imag]]
    if isinstance(value, dict):
        return ["dict", [[packed(key), packed(one)] for key, one in value.items()]]
    for name, of in _MANY.items():
        if isinstance(value, of):
            return [name, [packed(one) for one in value]]
    raise TypeError(f"{type(value).__name__} is no plain data")


def unpacked(value: Any) -> Any:
    """What `packed` was given, of built-in types alone."""
    if not isinstance(value, list):
        return value
    name, items = value
    if name == "dict":
        return {unpacked(key): unpacked(one) for key, one in items}
    if name == "complex":
        return complex(*items)
    return _MANY[name](unpacked(one) for one in items)


class GoneError(BaseException):
    """The program's process sends nothing any more. No test catches it as an exception of the program."""


class Channel:
    """Lines of JSON to the other process and from it."""

    def __init__(self, descriptor: int) -> None:
        self._in = os.fdopen(descriptor, "rb")
        self._out = os.fdopen(os.dup(descriptor), "wb", 0)

    def send(self, **message: object) -> None:
        """Raises OSError if the other one has ended."""
        line = json.dumps(message).encode() + b"\n"
        while line:
            line = line[self._out.write(line) :]

    def receive(self) -> Any:
        """None if the other one has ended."""
        line = self._in.readline()
        return json.loads(line) if line.endswith(b"\n") else None

    def answer(self) -> Any:
        """What the program's process answers. Raises GoneError, and what the program raised, by its built-in class."""
        answer = self.receive()
        if answer is None:
            raise GoneError
        if "error" in answer:
            raise _exception(answer["error"])
        return answer


def _exception(name: object) -> BaseException:
    found = getattr(builtins, str(name), None)
    if not isinstance(found, type) or not issubclass(found, BaseException):
        return GoneError()
    # A StopIteration would end a loop of the test, which then passes too early.
    made = RuntimeError if issubclass(found, StopIteration) else found
    return made.__new__(made)


# --- the two roles


def run(source: str, channel: Channel) -> None:
    """Runs the program, then answers calls until no one asks."""
    scope: dict[str, Any] = {"__name__": "__main__"}
    try:
        exec(compile(source, "<program>", "exec"), scope)  # noqa: S102 - what this process is for
    except BaseException as error:  # a failing program is a result, SystemExit included
        channel.send(error=kind(error))
        return
    channel.send(ended=True)
    while (asked := channel.receive()) is not None:
        try:
            if asked["name"] not in scope:
                raise NameError(asked["name"])
            result = scope[asked["name"]](*unpacked(asked["given"]), **unpacked(asked["named"]))
            channel.send(value=packed(result))
        except BaseException as error:
            channel.send(error=kind(error))


def judge(test: Any, channel: Channel) -> str:
    """How the test ends: `passed`, the built-in class of an exception, or `gone` if the program's process is.

    `test` has the prompt, the source of the test, and the name of the function that it calls; None is no test.
    """
    try:
        channel.answer()
        if test is not None:
            scope: dict[str, Any] = {"__name__": "__main__"}
            exec(_prompt(test["prompt"]), scope)  # noqa: S102 - what its authors wrote, without what a model wrote
            scope[test["name"]] = _remote(channel, test["name"])
            exec(compile(f"{test['source']}\ncheck({test['name']})", "<test>", "exec"), scope)  # noqa: S102
    except GoneError:
        return "gone"
    except BaseException as error:
        return kind(error)
    return "passed"


def _prompt(source: str) -> Any:
    """The prompt by itself: it ends in the head of a function, with or without a docstring."""
    try:
        return compile(source, "<prompt>", "exec")
    except SyntaxError:
        return compile(f"{source}\n    pass", "<prompt>", "exec")


def _remote(channel: Channel, name: str) -> Any:
    def function(*given: object, **named: object) -> object:
        message = {"name": name, "given": packed(given), "named": packed(named)}
        try:
            channel.send(**message)
        except OSError:
            raise GoneError from None
        return unpacked(channel.answer()["value"])

    return function


def main() -> None:
    """Ends with status 0 however the program ends, and with 97 if it cannot be confined."""
    role = sys.argv[1]
    descriptor, verdict, cpu_s, memory = map(int, sys.argv[2:6])
    del sys.argv[1:]
    source = sys.stdin.buffer.read().decode()
    # The program is not to read its own test.
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    sys.setrecursionlimit(3000)
    sys.set_int_max_str_digits(0)
    for name in _MODULES:
        importlib.import_module(name)
    channel = Channel(descriptor)
    try:
        limit(cpu_s, memory)
        confine()
    except (OSError, KeyError, ValueError):
        os._exit(97)
    if role == "program":
        channel.send(confined=True)
        run(source, channel)
        os._exit(0)
    if channel.receive() is None:
        os._exit(97)
    os.write(verdict, judge(json.loads(source), channel).encode())  # RLIMIT_FSIZE does not hold for a pipe.
    os._exit(0)


if __name__ == "__main__":
    main()
