"""What every test shares: hypothesis profiles, the package under test, and an event queue of its own."""

from __future__ import annotations

import os
import posix
import signal
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, settings

import baseplate_events
from tests.support.commands import run
from tests.support.queues import fresh_event_name
from tests.support.tools import check_root

if TYPE_CHECKING:
    from collections.abc import Generator

# What is meant for a POSIX queue must not go elsewhere.
os.environ.pop("EVENT_SPOOL_DIRECTORY", None)

# Machines that run tests are shared and noisy: no example has a deadline, so a slow one is not a failure.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", parent=settings.get_profile("default"), max_examples=2_000)
settings.register_profile("tenfold", parent=settings.get_profile("default"), max_examples=20_000)
settings.register_profile("quick", parent=settings.get_profile("default"), max_examples=25)
# For `tests/mutants`, which wants to know that a test fails, and not why.
settings.register_profile(
    "mutants",
    parent=settings.get_profile("default"),
    max_examples=50,
    phases=[Phase.explicit, Phase.generate],
    report_multiple_bugs=False,
)
profile = settings.get_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
if "CI" in os.environ:
    # The same examples in every run: a failure is of the change, and can be repeated.
    profile = settings(profile, derandomize=True, database=None)
settings.register_profile("chosen", parent=profile)
settings.load_profile("chosen")


def pytest_configure() -> None:
    """Give the processes of tests what they count on: SIGINT, and the installed package if it is under test.

    Raises:
        pytest.UsageError: Another package would be tested.
    """
    # A script starts background jobs with SIGINT ignored, and their children inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if os.environ.get("TEST_INSTALLED") == "1":
        _check_package()
    # A forked child writes at its end what was measured and isn't written yet, which would take it long.
    if (measured := _measured()) is not None:
        os.register_at_fork(before=measured.save)


def _measured() -> Any:  # noqa: ANN401 - coverage is only in the environment `quick`
    """Return the running measurement of coverage, if there is one."""
    coverage = sys.modules.get("coverage")
    return None if coverage is None else coverage.Coverage.current()


def _check_package() -> None:
    installed = Path(sysconfig.get_path("purelib"), baseplate_events.__name__, "__init__.py")
    where = "import baseplate_events; print(baseplate_events.__file__)"
    child = run(sys.executable, "-c", where)
    for process, found in (("here", baseplate_events.__file__), ("in a child", child.out.strip())):
        if found != str(installed):
            raise pytest.UsageError(f"the package {process} is {found or child.err}, not {installed}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with slow tests if several processes share all tests.

    One that came last would have the others wait for it.
    """
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Measure no coverage, here and in processes to come, during a test that isn't to be measured."""
    measured = _measured()
    if measured is None or not any(map(item.get_closest_marker, ("simulated", "unmeasured"))):
        return (yield)
    for_processes = os.environ.pop("COVERAGE_PROCESS_CONFIG", None)
    exit_of_children, os._exit = os._exit, vars(posix)["_exit"]
    measured.stop()
    try:
        return (yield)
    finally:
        measured.start()
        os._exit = exit_of_children
        if for_processes is not None:
            os.environ["COVERAGE_PROCESS_CONFIG"] = for_processes


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape what isn't UTF-8 in the output of a test: a process that runs tests couldn't report it."""
    report = yield
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections
    ]
    return report


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Don't run a test that needs root as another user."""
    check_root(item)


@pytest.fixture
def name() -> Generator[str]:
    """The NAME of an event queue that no other test has; whoever makes it, it is removed in the end."""
    with fresh_event_name() as name:
        yield name
