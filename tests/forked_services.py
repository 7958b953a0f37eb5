"""Starts services fast: a process that has imported everything once forks for each of them.

Starting Python and importing takes more than three seconds of processor time, and the tests start more than a hundred
services. Only the imports are shared: each service has its own settings, index, threads and doors. A service with several
workers is not started here, since uvicorn starts these itself.
"""

import atexit
import json
import os
import select
import signal
import subprocess
import sys
import threading
import traceback
from functools import cache
from pathlib import Path
from typing import IO, Final, NoReturn

ROOT: Final = Path(__file__).parents[1]


class Started:
    """A forked service, with the part of `subprocess.Popen` that tests use."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ended = threading.Event()

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if not self._ended.wait(timeout):
            raise subprocess.TimeoutExpired("server.py", timeout or 0)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def end(self, code: int) -> None:
        """Told by the starter, which is the parent."""
        self.returncode = code
        self._ended.set()


class Starter:
    """The tests' side of the process that forks."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.forked_services"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")},
        )  # fmt: skip
        self._running: dict[int, Started] = {}
        self._begun: Started | None = None
        self._answered = threading.Event()
        self._one_at_a_time = threading.Lock()
        threading.Thread(target=self._listen, daemon=True).start()
        atexit.register(self._process.terminate)

    def start(self, environment: dict[str, str], folder: Path, log: Path) -> Started:
        """Run `server.py` with this environment in this folder, its output in `log`."""
        assert self._process.stdin is not None
        request = {"environment": environment, "folder": str(folder), "log": str(log)}
        with self._one_at_a_time:
            self._answered.clear()
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
            assert self._answered.wait(120), "the starter does not answer"
            assert self._begun is not None, "the starter ended"
            return self._begun

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            pid, code = json.loads(line)
            if code is None:
                self._begun = self._running[pid] = Started(pid)
                self._answered.set()
            else:
                self._running.pop(pid).end(code)
        self._begun = None
        self._answered.set()


@cache
def starter() -> Starter:
    return Starter()


def _main() -> None:
    import citewell.api.serve  # noqa: F401  # what all of it is for

    answers = sys.stdout.buffer
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    requests = os.fdopen(os.dup(0), "rb", buffering=0)
    while True:
        ready, _, _ = select.select([requests, woken], [], [])
        if woken in ready:
            os.read(woken, 512)
            _report(answers)
        if requests in ready:
            line = _line(requests)
            if not line:
                return
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                for fd in (woken, wake, requests.fileno()):
                    os.close(fd)
                _serve(**json.loads(line))
            _say(answers, pid, None)


def _line(requests: IO[bytes]) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        part = requests.read(65536)
        if not part:
            return b""
        line += part
    return line


def _report(answers: IO[bytes]) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _say(answers, pid, os.waitstatus_to_exitcode(status))


def _say(answers: IO[bytes], pid: int, code: int | None) -> None:
    answers.write(json.dumps([pid, code]).encode() + b"\n")
    answers.flush()


def _serve(environment: dict[str, str], folder: str, log: str) -> NoReturn:
    """In the child: become what `python server.py` would be."""
    code = 1
    try:
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = ["server.py"]
        from citewell.api.serve import main

        main()
        code = 0
    except SystemExit as exc:
        code = exc.code if isinstance(exc.code, int) else int(exc.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _main()
