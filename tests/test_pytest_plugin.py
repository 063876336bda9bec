from __future__ import annotations

import importlib.metadata
import shutil
from pathlib import Path

import pytest

import baseplate_events

pytest_plugins = ["pytester"]

pytestmark = pytest.mark.unmeasured

#: A test module of a service, which has the package under this name.
TESTS_OF_A_SERVICE = """
from {package} import EventError, serialize_v2j_event

def test_puts(make_event_queue):
    queue = make_event_queue(serialize_v2j_event, name="clicks", max_queue_size=1)
    queue.put({{"action": "click"}})
    assert queue.only_event() == {{"action": "click"}}
    assert repr(queue) == "<InMemoryEventQueue 'clicks', 1 event>"

def test_is_apart(make_event_queue):
    one, other = make_event_queue(serialize_v2j_event), make_event_queue(serialize_v2j_event)
    one.put({{}})
    assert (len(one.events), len(other.events)) == (1, 0)

def test_collects(event_collector):
    assert event_collector.wait_for(0) == []

def test_that_fails(make_event_queue):
    queue = make_event_queue(serialize_v2j_event)
    try:
        queue.put({{"tags": b"one"}})
    except EventError:
        pass
    assert len(queue.events) == 1
"""

#: The package, its name in a service that has a copy, and how that copy is registered with pytest.
PACKAGE = Path(baseplate_events.__file__).parent
VENDORED = "acme.lib.baseplate_events"
BY_IMPORT = f"from {VENDORED}.pytest_plugin import event_collector, make_event_queue"
BY_NAME = f"pytest_plugins = ['{VENDORED}.pytest_plugin']"


def check_plugin(pytester: pytest.Pytester, package: str, *arguments: str) -> None:
    """Run the tests of a service, in a process of their own in which warnings are errors."""
    pytester.makepyfile(TESTS_OF_A_SERVICE.format(package=package))
    result = pytester.runpytest_subprocess("-Werror", "-pno:cacheprovider", *arguments)
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*refused events*",
            "<InMemoryEventQueue 'test', 0 events, 1 refused, *>, in order:",
            "EventNotSerializableError: Can't serialize field tags of the event: *",
        ]
    )


def test_the_fixtures_of_an_installed_package(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plugin's fixtures serve a service's tests; a failure shows what was refused."""
    monkeypatch.setenv("PYTHONPATH", str(PACKAGE.parent))
    check_plugin(pytester, "baseplate_events", "-p", "baseplate_events.pytest_plugin")


@pytest.mark.skipif(
    not importlib.metadata.entry_points(group="pytest11", name="baseplate_events.pytest_plugin"),
    reason="the package isn't installed",
)
@pytest.mark.parametrize("conftest", ["", "pytest_plugins = ['baseplate_events.pytest_plugin']"])
def test_an_installed_package_needs_no_conftest(pytester: pytest.Pytester, conftest: str) -> None:
    """The entry point provides the fixtures, even if a conftest names the plugin as well."""
    pytester.makeconftest(conftest)
    check_plugin(pytester, "baseplate_events")


@pytest.mark.parametrize("conftest", [BY_IMPORT, BY_NAME])
def test_the_fixtures_of_a_vendored_package(pytester: pytest.Pytester, conftest: str) -> None:
    """A service's conftest imports or names the plugin of its copy, which knows no other name of itself."""
    folder = pytester.mkpydir("acme") / "lib"
    shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "__init__.py").touch()
    pytester.makeconftest(conftest)
    check_plugin(pytester, VENDORED)
