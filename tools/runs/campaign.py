"""Many independent runs: in worker processes, with a memory of what is done already, and the time left.

A result is kept under a key that stands for everything that determines it. So what was interrupted goes on
where it stopped, and what has not changed is not run again. Results are JSON documents.

Each run has a process of its own: memory goes back when it ends, and the parent is never blocked.
"""

from __future__ import annotations

import functools
import hashlib
import json
import multiprocessing
import os
import platform
import shutil
import signal
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any, Final, Protocol

from l4lab.emulator.errors import OperatorError
from l4lab.emulator.files.inputs import PACKAGE_DIR
from l4lab.emulator.stutter import stutters
from l4lab.kernel.errors import KernelBug
from l4lab.tools.common.progress import Tell

POLL_SECONDS: Final = 0.5
EXIT_FAILED: Final = 1
EXIT_INTERRUPTED: Final = 130

NOT_IN_RUNS: Final = ("check", "cli", "debug", "paper", "trace", "why")
"""Of `tools`: what shows results. May change without a run being done again; no run may import it."""

Work = Callable[[Tell], dict[str, Any]]
"""Does one run and returns its result; may tell which part of it is done, 0 to 1. Can be pickled."""


class CampaignError(OperatorError):
    """A run failed, or its result cannot be kept."""


@dataclass(frozen=True, slots=True)
class Job:
    """One run. `key`: stands for all that determines its result. `weight`: about how long it takes."""

    name: str
    key: str
    weight: float
    work: Work


@dataclass(frozen=True, slots=True)
class Finished:
    """A result, and how long it took the host when it was made."""

    document: dict[str, Any]
    host_seconds: float


class Watcher(Protocol):
    """Whoever shows how far a campaign is."""

    def finished(self, name: str, seconds: float, done: float, left_seconds: float | None) -> None:
        """A job is done. `done`: part of the whole, 0 to 1; `left_seconds`: None while it cannot be known."""

    def going_on(self, names: Sequence[str], done: float, left_seconds: float | None) -> None:
        """Twice a second: what is running."""


def key_of(*parts: object) -> str:
    """A key for results that depend on `parts`, as JSON has them, and on the code of this package."""
    text = json.dumps([code_digest(), *parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@functools.cache
def code_digest() -> str:
    """Changes with all code that results depend on; profiles and programs are in a manifest's hashes."""
    digest = hashlib.sha256(f"{version('unicorn')} {platform.python_version()} ".encode())
    for path in _code_files():
        digest.update(f"{path.relative_to(PACKAGE_DIR)} ".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _code_files() -> list[Path]:
    """All of ours but NOT_IN_RUNS: whoever adds a module need not think of it."""
    found = []
    for folder in ("kernel", "emulator", "tools", "_native"):
        root = PACKAGE_DIR / folder
        for path in root.rglob("*"):
            shows = folder == "tools" and path.relative_to(root).parts[0] in NOT_IN_RUNS
            if path.suffix in (".py", ".so", ".dylib") and not shows:
                found.append(path)
    return sorted(found)


@stutters()
def _check_code(expected: str) -> None:
    """A result is not kept if code had part in it that its key does not stand for."""
    code_digest.cache_clear()  # some modules are only imported when they are needed
    if code_digest() != expected:
        raise CampaignError("the code of l4lab has changed since the runs began; start them again")
    for name in NOT_IN_RUNS:
        if f"l4lab.tools.{name}" in sys.modules:
            raise CampaignError(f"the run used tools/{name}, found in NOT_IN_RUNS, expected only what is not")


def host_workers() -> int:
    """One for each core that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run_all(
    jobs: Sequence[Job], cache: Path, workers: int, watcher: Watcher | None = None
) -> dict[str, Finished]:
    """Do what is not done yet, at most `workers` at a time, and return all results by key.

    Raises CampaignError when a run fails, after the others that are running have ended; KeyboardInterrupt
    after Ctrl-C. What has been done until then is kept in the folder `cache`.
    """
    _make_folder(cache)
    unique = {job.key: job for job in jobs}
    campaign = _Campaign(cache, watcher, list(unique.values()))
    campaign.run(workers)
    return {key: _result(cache, key) for key in unique}


# --- results on disk ----------------------------------------------------------------------------------


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CampaignError(f"{folder}: {error.strerror}, expected a folder to keep results in") from None


def _path(cache: Path, key: str) -> Path:
    return cache / f"{key}.json"


def _read(cache: Path, key: str) -> Finished:
    """Raises OSError; ValueError if the file is not what `_keep` has written under this key."""
    path = _path(cache, key)
    if not path.is_file():  # a pipe would never end
        raise FileNotFoundError("found no regular file")
    kept = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(kept, dict):
        raise ValueError(f"found {type(kept).__name__}, expected an object")
    seal = kept.pop("seal", None)
    if seal != _seal(key, kept):
        raise ValueError("found another content than was written")
    return Finished(kept["result"], kept["host_seconds"])


def _result(cache: Path, key: str) -> Finished:
    try:
        return _read(cache, key)
    except (OSError, ValueError) as error:
        raise CampaignError(f"{_path(cache, key)}: {error}; it has changed since; start again") from None


def _is_done(cache: Path, key: str) -> bool:
    """What cannot be read was cut off or changed, or is somebody else's, or no file at all: it is written anew."""
    try:
        _read(cache, key)
    except (OSError, ValueError, RecursionError):
        return False
    return True


@stutters()
def _keep(cache: Path, key: str, result: dict[str, Any], seconds: float) -> None:
    """Whole or not at all, also if several processes do it."""
    kept = json.loads(json.dumps({"host_seconds": round(seconds, 2), "result": result}))  # as it is read
    path = _path(cache, key)
    new = cache / f"{key}.{os.getpid()}.new"
    try:
        new.write_text(json.dumps({**kept, "seal": _seal(key, kept)}), encoding="utf-8")
        _make_room(path)
        new.replace(path)
    except OSError as error:
        raise CampaignError(f"cannot write {path}: {error.strerror}") from None
    finally:
        with suppress(OSError):
            new.unlink(missing_ok=True)


def _make_room(path: Path) -> None:
    """A file takes the place of a file, of a pipe and of a link by itself; a folder has to go first."""
    if path.is_dir() and not path.is_symlink():
        with suppress(OSError):
            path.chmod(stat.S_IRWXU)
        shutil.rmtree(path, ignore_errors=True)  # whoever puts the file there reports what is left


def _seal(key: str, kept: dict[str, Any]) -> str:
    """Whatever else stands in a file, by accident or by hand, has another one."""
    return hashlib.sha256(json.dumps([key, kept], sort_keys=True).encode()).hexdigest()


# --- the worker ---------------------------------------------------------------------------------------


@stutters()
def _worker(job: Job, code: str, cache: Path, pipe: connection.Connection) -> None:
    """The life of one process: sends how far it is, or at last why it failed; the result is kept.

    `code`: what `code_digest` was when the job's key was made.
    """

    def tell(done: float) -> None:
        _send(pipe, done)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    start = time.process_time()
    try:
        _check_code(code)
        result = job.work(tell)
        _check_code(code)
        _keep(cache, job.key, result, time.process_time() - start)
    except OperatorError as error:
        _send(pipe, f"{job.name}: {error}")
        sys.exit(EXIT_FAILED)
    except OSError as error:
        # One that names no file is about the run's own, which are temporary.
        place = error.filename or f"temporary files in {tempfile.gettempdir()}"
        _send(pipe, f"{job.name}: {place}: {error.strerror or error}")
        sys.exit(EXIT_FAILED)
    except KernelBug as bug:
        _send(pipe, f"{job.name}: a bug in l4lab's kernel: {bug}")
        sys.exit(EXIT_FAILED)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


@stutters()
def _send(pipe: connection.Connection, said: float | str) -> None:
    """To the parent; if that has been killed, nobody wants the result, nor to hear why there is none."""
    try:
        pipe.send(said)
    except ConnectionError:
        sys.exit(EXIT_INTERRUPTED)


def _leave(_number: int, _frame: FrameType | None) -> None:
    """The parent wants no result any more: end, but remove what is temporary."""
    sys.exit(EXIT_INTERRUPTED)


@dataclass(slots=True)
class _Running:
    """A job in its process."""

    job: Job
    process: BaseProcess
    pipe: connection.Connection
    start: float
    done: float = 0.0
    problem: str | None = None

    @stutters()
    def listen(self) -> None:
        """Take in what it has said."""
        while self.pipe.poll():
            try:
                said = self.pipe.recv()
            except EOFError:
                return
            if isinstance(said, str):
                self.problem = said
            else:
                self.done = said


# --- the parent ---------------------------------------------------------------------------------------


class _Campaign:
    """Jobs that wait, run and are done; the heaviest first, so that none is left alone at the end."""

    def __init__(self, cache: Path, watcher: Watcher | None, jobs: list[Job]) -> None:
        self.cache = cache
        self.watcher = watcher
        self.context = multiprocessing.get_context("spawn")
        self.waiting = sorted(
            (job for job in jobs if not _is_done(cache, job.key)), key=lambda job: job.weight, reverse=True
        )
        self.running: list[_Running] = []
        self.weight = sum(job.weight for job in jobs)
        self.kept_weight = self.weight - sum(job.weight for job in self.waiting)
        self.new_weight = 0.0
        self.start = time.monotonic()

    def run(self, workers: int) -> None:
        problem: str | None = None
        try:
            while self.running or (self.waiting and problem is None):
                while self.waiting and len(self.running) < workers and problem is None:
                    self._begin(self.waiting.pop(0))
                connection.wait([entry.process.sentinel for entry in self.running], POLL_SECONDS)
                problem = self._collect() or problem
                if self.watcher is not None and self.running:
                    names = [entry.job.name for entry in self.running]
                    self.watcher.going_on(names, *self._progress())
        finally:
            self._stop()
        if problem is not None:
            raise CampaignError(problem)

    @stutters()
    def _begin(self, job: Job) -> None:
        receiver, sender = self.context.Pipe(duplex=False)
        process = self.context.Process(
            target=_worker, args=(job, code_digest(), self.cache, sender), daemon=True
        )
        process.start()
        sender.close()
        self.running.append(_Running(job, process, receiver, time.monotonic()))

    @stutters()
    def _collect(self) -> str | None:
        """Take leave of processes that have ended; the first problem that one of them had."""
        problem: str | None = None
        for entry in list(self.running):
            ended = not entry.process.is_alive()
            entry.listen()
            if not ended:
                continue
            self.running.remove(entry)
            if entry.process.exitcode == EXIT_INTERRUPTED:
                raise KeyboardInterrupt
            if entry.process.exitcode != 0:
                default = f"{entry.job.name}: the run ended with code {entry.process.exitcode}"
                problem = problem or entry.problem or default
                continue
            self.new_weight += entry.job.weight
            if self.watcher is not None:
                self.watcher.finished(entry.job.name, time.monotonic() - entry.start, *self._progress())
        return problem

    def _progress(self) -> tuple[float, float | None]:
        """(part of the whole that is done, seconds left), by weight."""
        new = self.new_weight + sum(entry.job.weight * entry.done for entry in self.running)
        done = self.kept_weight + new
        if new <= 0:
            return done / self.weight, None
        return done / self.weight, (time.monotonic() - self.start) * (self.weight - done) / new

    @stutters()
    def _stop(self) -> None:
        """Whatever still runs ends now."""
        for entry in self.running:
            entry.process.terminate()
        for entry in self.running:
            entry.process.join()
