"""The examples in README.md and docs/ work: each is run here, or in the place that a table below names.

A block that is new must be entered in a table, with the test that tries it or the reason why none does.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import re
import shlex
import shutil
import sys
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, cast

import pytest

from baseplate_events import EventError, EventQueue, serialize_v2_event, serialize_v2j_event
from baseplate_events.__main__ import _COMMANDS as COMMANDS  # pyright: ignore[reportPrivateUsage]
from baseplate_events.event_publisher.config.settings import load_settings
from baseplate_events.events import SPOOL_VARIABLE
from baseplate_events.testing import InMemoryEventQueue
from tests.support.commands import IMPORTING, run
from tests.support.documents import DOCUMENTS, TOP, Block, blocks
from tests.support.schema_samples import PLAIN, small_event
from tests.support.spool_reader import SpoolFileReader

if TYPE_CHECKING:
    from collections.abc import Generator

_RECIPES: Final = "tests/test_events_recipes.py"

#: The Python blocks, by document, heading and number under it, and what runs them.
PYTHON: Final = {
    ("README.md", "In a service", 1): "test_thrift_events",
    ("README.md", "In a service", 2): "test_json_events",
    ("README.md", "In a service", 3): "test_json_events",
    ("README.md", "In a service", 4): "tests/interop/test_documentation.py",  # needs the framework
    ("docs/migrating.md", "In the code of a service", 1): "test_the_import_of_a_service",
    ("docs/migrating.md", "In the code of a service", 2): "test_the_clause_of_a_service",
    ("docs/services.md", "Frameworks and servers", 1): "tests/servers/test_guide.py",
    ("docs/services.md", "Flask", 1): "tests/servers/test_guide.py",
    ("docs/services.md", "FastAPI", 1): "tests/servers/test_guide.py",
    ("docs/services.md", "Django", 1): "tests/servers/test_guide.py",
    ("docs/services.md", "Celery", 1): "tests/servers/test_guide.py",
    ("docs/services.md", "asyncio", 1): "tests/servers/test_guide.py",
    ("docs/services.md", "gevent", 1): "tests/servers/test_guide.py",
    ("docs/services.md", "A spool instead of a POSIX queue", 1): "test_a_queue_with_a_spool",
    ("docs/services.md", "Testing a service", 1): "test_the_tests_of_a_service",
    (
        "docs/services.md",
        "Refused events: count them, and log them rarely",
        1,
    ): "test_a_put_that_does_not_raise",
    ("docs/services.md", "Counters, depth and capacity", 1): _RECIPES,
    ("docs/services.md", "Counters, depth and capacity", 2): _RECIPES,
    ("docs/services.md", "Counters, depth and capacity", 3): _RECIPES,
    ("docs/services.md", "Hooks and sampling", 1): _RECIPES,
    ("docs/services.md", "Hooks and sampling", 2): _RECIPES,
    ("docs/services.md", "Worker processes", 1): _RECIPES,
}

_DEBIAN: Final = "tests/deploy/test_systemd.py"
_CONTAINER: Final = "tests/deploy/test_container.py"
_GUIDE: Final = "tests/servers/test_guide.py"

#: The headings with commands, and what runs them, or why nothing does. For all, the syntax is checked, and
#: that commands of the package take the words.
CONSOLE: Final = {
    ("README.md", ""): "the demo has tests of its own",
    ("README.md", "Developing this package"): ".ci/run",
    ("README.md", "In a service"): "tests/types/test_documents.py",
    ("README.md", "In containers"): "docs/operations.md has them with more options, and those are run",
    ("README.md", "The event publisher"): "needs the collector of the reader",
    ("README.md", "Limits of the host"): "changes the kernel's settings",
    ("README.md", "A collector for development"): "runs on a fixed port until a signal comes",
    ("CONTRIBUTING.md", "Set up"): "needs a clone, and gets packages",
    ("CONTRIBUTING.md", "Run the tests"): "these are the tests",
    ("docs/migrating.md", "In the publisher"): "needs the configuration of the reader",
    ("docs/migrating.md", "Rolling out, host by host"): "needs the host of the reader",
    ("docs/migrating.md", "Back"): "needs the host of the reader",
    ("docs/migrating.md", "From the POSIX queue to the spool"): "needs the host of the reader",
    ("docs/migrating.md", "Back to the POSIX queue"): "needs the host of the reader",
    ("docs/operations.md", "On a Debian host with systemd"): _DEBIAN,
    ("docs/operations.md", "In containers"): _CONTAINER,
    (
        "docs/operations.md",
        "In Kubernetes",
    ): "needs a cluster; tests/deploy/test_kubernetes.py checks the manifest",
    ("docs/operations.md", "POSIX queues in containers"): _CONTAINER,
    ("docs/operations.md", "Dead letters"): "needs a folder of the reader",
    ("docs/operations.md", "Health and metrics endpoint"): "needs the publisher of the reader",
    ("docs/releasing.md", "Before"): ".ci/run, and the long runs",
    ("docs/releasing.md", "Release"): "built by tests/release/check.py",
    ("docs/services.md", "Flask"): _GUIDE,
    ("docs/services.md", "FastAPI"): _GUIDE,
    ("docs/services.md", "Django"): _GUIDE,
    ("docs/services.md", "Celery"): _GUIDE,
    ("docs/services.md", "gunicorn"): _GUIDE,
    ("docs/services.md", "uvicorn"): _GUIDE,
    ("docs/services.md", "asyncio"): _GUIDE,
    ("docs/services.md", "gevent"): _GUIDE,
    ("docs/services.md", "Types for Thrift events"): "tests/types/test_documents.py",
}

#: Words that stand for what a reader has.
PLACEHOLDERS: Final = {"NUMBER": "1"}

#: A command of the package in a line of a shell: its module, and its words up to the end of the command.
_COMMAND: Final = re.compile(r"-m (baseplate_events[\w.]*)((?: (?![|>&;#])(?:\"[^\"]*\"|\S+))*)")


def python_blocks() -> dict[tuple[str, str, int], Block]:
    """Return the Python blocks of all documents, by the keys of the table."""
    found: dict[tuple[str, str, int], Block] = {}
    for document in DOCUMENTS:
        for block in blocks(document, "python"):
            number = 1 + sum(key[:2] == (document, block.heading) for key in found)
            found[document, block.heading, number] = block
    return found


def example(document: str, heading: str, number: int = 1) -> str:
    """Return the text of a Python block."""
    return python_blocks()[document, heading, number].text


def console_blocks() -> list[Block]:
    """Return the blocks with commands of all documents."""
    return [block for document in DOCUMENTS for block in blocks(document, "console")]


def execute(text: str, **names: object) -> dict[str, Any]:
    """Run an example with what its reader has; return all names that there are then."""
    variables: dict[str, Any] = {"__name__": "example", **names}
    exec(compile(text, "example", "exec"), variables)
    return variables


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for spools that examples use by its variable: no other test has their queues."""
    folder = tmp_path / "spool"
    folder.mkdir()
    monkeypatch.setenv(SPOOL_VARIABLE, str(folder))
    return folder


@pytest.fixture
def event_schemas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """The package of generated classes that examples import."""
    package = tmp_path / "sources" / "event_schemas"
    shutil.copytree(Path(str(PLAIN.__file__)).parent, package / "event")
    (package / "__init__.py").touch()
    monkeypatch.setattr(sys, "path", [str(package.parent), *sys.path])
    yield
    for name in [name for name in sys.modules if name.startswith("event_schemas")]:
        del sys.modules[name]


def arrived(spool: Path, name: str) -> list[Any]:
    """Return the events in a spool, parsed."""
    with SpoolFileReader(spool / f"events-{name}") as reader:
        reader.read()
        return [json.loads(event) for event in reader.events]


def test_every_block_is_listed() -> None:
    """The tables name each Python block and each heading with commands, and nothing else."""
    assert set(PYTHON) == set(python_blocks())
    assert set(CONSOLE) == {(block.document, block.heading) for block in console_blocks()}


def test_what_runs_a_block_exists() -> None:
    """A test that the tables name is in this file, or is a file that takes blocks out of a document."""
    for where in {*PYTHON.values(), *CONSOLE.values()}:
        if where.startswith("tests/"):
            assert re.search(r"blocks\(|guide\(|GUIDE", (TOP / where).read_text()), where
        elif where.startswith("test_"):
            assert where in globals()


@pytest.mark.parametrize("key", PYTHON, ids=lambda key: "-".join(map(str, key)))
def test_every_python_block_compiles(key: tuple[str, str, int]) -> None:
    """It is Python, of the oldest version that the package supports."""
    compile(python_blocks()[key].text, "example", "exec")


@pytest.mark.parametrize("block", console_blocks(), ids=lambda block: f"{block.document}:{block.line}")
def test_every_command_is_one(block: Block) -> None:
    """A shell accepts it, and a command of the package takes the words that it is given."""
    run("bash", "-n", stdin=block.text).check()
    for module, words in _COMMAND.findall(block.text.replace("\\\n", " ")):
        check_command(module, [PLACEHOLDERS.get(word, word) for word in shlex.split(words)])


def check_command(module: str, words: list[str]) -> None:
    """Parse the words of a command without running it.

    Raises:
        SystemExit: They are wrong.
    """
    path = module.removeprefix("baseplate_events")
    if not path:
        path, words = COMMANDS[words[0]][0], words[1:]
    elif path == ".event_publisher":
        path += ".__main__"
    command = importlib.import_module(path, "baseplate_events")
    parser = argparse.ArgumentParser()
    cast("Any", command).add_arguments(parser)
    parser.parse_args(words)


@pytest.mark.parametrize(
    "block",
    [block for document in DOCUMENTS for block in blocks(document, "ini")],
    ids=lambda block: f"{block.document}:{block.line}",
)
def test_every_configuration_is_good(block: Block, tmp_path: Path, spool: Path) -> None:
    """A publisher takes it, once it has a real secret."""
    path = tmp_path / "config.ini"
    assert "Base64-encoded-blob-of-randomness" in block.text
    path.write_text(block.text.replace("Base64-encoded-blob-of-randomness", "c2VjcmV0"))
    load_settings(str(path), "v2", {SPOOL_VARIABLE: str(spool)})


@pytest.mark.usefixtures("event_schemas")
def test_thrift_events(spool: Path) -> None:
    """The handler of the README puts its event."""
    names = execute(example("README.md", "In a service", 1))
    names["my_handler"](object())
    names["events_v2"].close()
    [event] = arrived(spool, "v2")
    assert {"str": "baseplate"} == event["1"]
    assert {"str": "test"} == event["2"]


def test_json_events(spool: Path) -> None:
    """The click of the README is in the queue, and so is what the serializer with a default takes."""
    names = execute(example("README.md", "In a service", 2))
    names["clicks"].close()
    assert [{"action": "click", "client_timestamp": 1}] == arrived(spool, "clicks")
    names = execute(example("README.md", "In a service", 3), **names)
    with names["shares"] as shares:
        shares.put({"share": Fraction(1, 4)})
    assert [{"share": "0.25"}] == arrived(spool, "shares")


def test_a_put_that_does_not_raise() -> None:
    """The event is in the queue, or it isn't, and nothing else happens."""
    queue = InMemoryEventQueue("v2", serialize_v2j_event, max_queue_size=1)
    for _ in range(2):
        execute(
            example("docs/services.md", "Refused events: count them, and log them rarely", 1), queue=queue
        )
    assert (1, 1) == (len(queue.events), queue.counters().refused.full)


def test_the_import_of_a_service() -> None:
    """The names that a service imported from baseplate.py are here."""
    names = execute(example("docs/migrating.md", "In the code of a service", 1))
    assert EventQueue is names["EventQueue"]


def test_the_clause_of_a_service(caplog: pytest.LogCaptureFixture) -> None:
    """An event that is refused is logged, and nothing else happens."""
    queue = InMemoryEventQueue("v2", serialize_v2_event, max_queue_size=1)
    context, logger = SimpleNamespace(events_v2=queue), logging.getLogger("example")
    names = {"context": context, "event": small_event(), "logger": logger}
    for expected in (0, 1):
        execute(example("docs/migrating.md", "In the code of a service", 2), EventError=EventError, **names)
        assert expected == len(caplog.records)
    assert 1 == len(queue.events)


def test_a_queue_with_a_spool(tmp_path: Path) -> None:
    """The queue with a spool is one, in the test's folder instead of the host's."""
    text = example("docs/services.md", "A spool instead of a POSIX queue")
    host = '"/var/spool/events"'
    assert host in text
    names = {"EventQueue": EventQueue, "serialize_v2_event": serialize_v2_event}
    queue = execute(text.replace(host, repr(str(tmp_path))), **names)["queue"]
    queue.put(small_event())
    queue.close()
    assert 1 == len(arrived(tmp_path, "v2"))


def test_the_tests_of_a_service(tmp_path: Path) -> None:
    """They pass, with pytest, for a service that does what they expect."""
    (tmp_path / "shop.py").write_text(
        "from baseplate_events import EventError\n"
        "def handle_click(queue):\n"
        "    try:\n"
        "        queue.put({'action': 'click', 'client_timestamp': 1})\n"
        "    except EventError:\n"
        "        pass\n"
    )
    (tmp_path / "test_shop.py").write_text(example("docs/services.md", "Testing a service"))
    options = ("-q", "-pno:cacheprovider", "-pbaseplate_events.pytest_plugin", f"--rootdir={tmp_path}")
    result = run(sys.executable, "-m", "pytest", *options, str(tmp_path), environ=IMPORTING)
    assert "2 passed" in result.check()
