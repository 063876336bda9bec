"""Runs simulated processes step by step, by a schedule.

Each task, a thread of a simulated process, is a greenlet. Before each call of the kernel it asks the strategy
what happens next. A run depends on nothing else.
"""

from __future__ import annotations

import errno
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from .kernel import Kernel, Process, os_error
from .schedules import Choice

if TYPE_CHECKING:
    from collections.abc import Callable

    from .kernel import Inode
    from .schedules import Kind, Strategy


class _Greenlet(Protocol):
    """The part of a greenlet that is used."""

    parent: _Greenlet

    def switch(self) -> object:
        """Run it until it or another one switches back."""


# It has no types of its own.
_new_greenlet: Callable[[Callable[[], None]], _Greenlet] = import_module("greenlet").greenlet
_current_greenlet: Callable[[], _Greenlet] = import_module("greenlet").getcurrent

#: Steps of a run beyond which it doesn't end.
_MAX_STEPS = 20_000

#: Seconds that a step takes.
_STEP_TIME = 1e-5


_GO = Choice("go")


class KilledError(BaseException):
    """Raised in a task of a process that was killed."""


class Violation(AssertionError):  # noqa: N818 - it isn't an error of the test, but what it looks for
    """A rule that was broken."""


class Task:
    """A thread of a simulated process.

    Attributes:
        name: Its name in schedules.
        process: The process that it belongs to.
        waits_for: The file that it writes to next; it has to wait while another write to it is in progress.
        stopped: Whether it was stopped.
        ended: Whether it has ended.
        steps: How many steps it made.
        began: The step of the machine at which it began its current action.
        cut: Files with a short write during that action.
    """

    def __init__(self, name: str, process: Process, job: Callable[[], None]) -> None:
        self.name = name
        self.process = process
        self.waits_for: Inode | None = None
        self.stopped = False
        self.ended = False
        self.steps = 0
        self.began = 0
        self.cut: list[Inode] = []
        self.greenlet = _new_greenlet(job)

    @property
    def runnable(self) -> bool:
        """Whether it may run."""
        return not (self.ended or self.stopped or (self.waits_for is not None and self.waits_for.busy))


class Machine:
    """Runs tasks, one at a time.

    Args:
        strategy: Chooses what happens.

    Attributes:
        kernel: The simulated kernel.
        errors: The errors with which calls may fail, by call; 0 for lack of space.
        broken: Calls of publishers that fail.
        steps: How many there were.
        current: The task that runs, or None between runs.
        failure: The first failure.
        schedule: The choices that weren't the first option.
        log: What happened, for people.
        handlers: Signal handlers by process. A handler doesn't interrupt itself.
        quiet: Whether a finalizer runs, from which nothing can be raised: it is part of the step before it.
            All that it does is to close a descriptor, which others notice no sooner than the next step.
    """

    def __init__(self, strategy: Strategy) -> None:
        self._strategy = strategy
        self._main = _current_greenlet()
        self._tasks: list[Task] = []
        self._back: Task | None = None  # who killed, and waits for the killed to end
        self.steps = 0
        self.kernel = Kernel()
        self.errors: dict[str, tuple[int, ...]] = {"create": (0,), "write": (0,), "publish": (0,)}
        self.broken: frozenset[str] = frozenset()
        self.quiet = False
        self.handlers: dict[Process, Callable[[], None]] = {}
        self.current: Task | None = None
        self.failure: BaseException | None = None
        self.schedule: dict[int, int] = {}
        self._choices = 0
        self.log: list[tuple[str, str, object]] = []

    @property
    def now(self) -> float:
        """Seconds."""
        return self.kernel.now

    @now.setter
    def now(self, now: float) -> None:
        self.kernel.now = now

    def spawn(self, name: str, process: Process, job: Callable[[], None]) -> None:
        """Start a task, which runs when it is its turn."""
        task = Task(name, process, lambda: self._run(task, job))
        task.greenlet.parent = self._main
        self._tasks.append(task)

    def run(self) -> None:
        """Run all tasks until they end."""
        while True:
            task = self._next_task()
            if task is None:
                break
            self.current = task
            task.greenlet.switch()
        self.current = None
        if self.failure is not None:
            raise self.failure

    def step(self, process: Process, call: str, detail: object = "", *, inode: Inode | None = None) -> Choice:
        """Do what is due before a call of a process.

        Returns:
            How it ends: `go`, `short`, `split` or `torn` with a number of bytes, or `fail`. If it is `torn`,
            the process has to end after that.

        Raises:
            KilledError: The process was killed.
            OSError: The same, in a finalizer.
        """
        task = self.current
        if not process.alive:
            raise os_error(errno.EBADF) if self.quiet else KilledError
        if task is None or task.process is not process or self.quiet:
            return _GO
        size = len(detail) if call == "write" and isinstance(detail, bytes) else 0
        task.steps += 1
        self.steps += 1
        if self.steps > _MAX_STEPS:
            raise Violation("it doesn't end")
        while True:
            task.waits_for = inode
            self._choices += 1
            if task.runnable and not self._strategy.interferes(self._choices, call):
                option = _GO
            else:
                option = self._choose(self._options(task, call, size))
            if option.kind == "kill":
                self.log.append((str(option.target), "is killed", ""))
                self._kill(task, str(option.target))
                continue
            if option.kind == "signal":
                self._signal(task)
                continue
            if option.kind in {"next", "run", "stop"}:
                if option.kind == "stop":
                    self.log.append((task.name, "is stopped", ""))
                    task.stopped = True
                    self._give(task, self._pick_next())
                else:
                    self._give(task, self._named(str(option.target)))
                continue
            task.waits_for = None
            self.now += _STEP_TIME
            self.log.append((task.name, call, detail if option.kind == "go" else (option, detail)))
            return option

    def begin(self) -> None:
        """Record that the current task begins an action."""
        assert self.current is not None
        self.current.began = self.steps

    def end(self) -> None:
        """Record that the action has ended."""
        task = self.current
        assert task is not None
        for inode in task.cut:
            inode.cut_by.setdefault(task.process.pid, self.steps)
        task.cut.clear()

    def check_write(self, process: Process, inode: Inode) -> None:
        """Raise a `Violation` if a process writes to a file after a write to it was cut short."""
        task = self.current
        if task is not None and task.began >= inode.cut_by.get(process.pid, _MAX_STEPS + 1):
            raise Violation("a process writes to a file after a short write")

    def note_cut(self, inode: Inode) -> None:
        """Record a short write of the current task."""
        if self.current is not None:
            self.current.cut.append(inode)

    def pause(self, process: Process, inode: Inode) -> None:
        """Let others run while a write to a file is in progress."""
        task = self.current
        if task is None or task.process is not process:
            return
        inode.busy = True
        try:
            others = [other for other in self._tasks if other.runnable and other is not task]
            if not others:
                return
            options = [Choice("next", other.name) for other in others]
            options += [Choice("kill", task.process.name)]
            self._choices += 1
            option = self._choose(options)
            if option.kind == "kill":
                self.log.append((task.name, "is killed", ""))
                self._kill(task, task.process.name)
            self._give(task, self._named(str(option.target)))
        finally:
            inode.busy = False

    def kill(self, process: Process) -> None:
        """Kill a process that isn't the current one's, or is in the middle of a write."""
        assert self.current is not None
        self._kill(self.current, process.name)

    def _options(self, task: Task, call: str, size: int) -> list[Choice]:
        options: list[Choice] = []
        if task.runnable:
            options.append(_GO)
        other_kind: Kind = "run" if options else "next"
        processes = {task.process.name: None}
        for other in self._tasks:
            if other.ended:
                continue
            processes[other.process.name] = None
            if other is not task and other.runnable:
                options.append(Choice(other_kind, other.name))
        if not options:  # all others are stopped
            for other in self._tasks:
                other.stopped = False
            return self._options(task, call, size)
        options += [Choice("kill", name) for name in processes]
        if len(options) > 1 + len(processes) and not task.stopped:
            options.append(Choice("stop"))
        if options[0].kind == "go":
            if task.process in self.handlers:
                options.append(Choice("signal"))
            for cut in sorted({1, size // 2, size - 1}) if size > 1 else ():
                options += [Choice("short", cut), Choice("torn", cut), Choice("split", cut)]
            options += [Choice("fail", number) for number in self.errors.get(call, ())]
        return options

    def _choose(self, options: list[Choice]) -> Choice:
        if len(options) == 1:
            return options[0]
        taken = self._strategy.choose(self._choices, options)
        if taken:
            self.schedule[self._choices] = taken
        return options[taken]

    def _named(self, name: str) -> Task:
        return next(task for task in self._tasks if task.name == name and not task.ended)

    def _pick_next(self) -> Task:
        options = [Choice("next", task.name) for task in self._tasks if task.runnable]
        if not options:
            for task in self._tasks:
                task.stopped = False
            options = [Choice("next", task.name) for task in self._tasks if task.runnable]
        self._choices += 1
        return self._named(str(self._choose(options).target))

    def _signal(self, task: Task) -> None:
        """Run the signal handler of a task's process in the middle of what it does."""
        self.log.append((task.name, "handles a signal", ""))
        handler = self.handlers.pop(task.process)
        began, steps, cut, task.cut = task.began, task.steps, task.cut, []
        handler()
        task.began, task.steps, task.cut = began, steps, cut
        self.handlers[task.process] = handler

    def _give(self, task: Task, other: Task) -> None:
        """Let another task run, until it is this one's turn again."""
        if other is not task:
            self.current = other
            other.greenlet.switch()
        if not task.process.alive:
            raise KilledError

    def _kill(self, task: Task, name: str) -> None:
        """Kill a process: first its other tasks unwind, then its descriptors are closed."""
        process = next(other.process for other in self._tasks if other.process.name == name)
        process.alive = False
        process.killed = True
        for other in list(self._tasks):
            if other.process is process and other is not task and not other.ended:
                self._back = task
                self.current = other
                other.greenlet.switch()
        self.kernel.exit(process)
        if process is task.process:
            raise KilledError

    def _run(self, task: Task, job: Callable[[], None]) -> None:
        try:
            if task.process.alive:
                job()
        except KilledError:
            pass
        except BaseException as exc:  # noqa: BLE001 - it is raised where the run was started
            self.failure = self.failure or exc
        task.ended = True

    def _next_task(self) -> Task | None:
        """Return the task to run after one has ended; None if all have."""
        if self._back is not None:
            back, self._back = self._back, None
            return back
        left = [task for task in self._tasks if not task.ended]
        if self.failure is not None:
            for task in left:
                task.process.alive = False
            return left[0] if left else None
        return self._pick_next() if left else None
