"""The recipes of docs/services.md for metrics, hooks and workers work as written, with the real libraries."""

from __future__ import annotations

import contextlib
import multiprocessing
import random
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, cast

import opentelemetry.metrics
import prometheus_client
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, NumberDataPoint, Sum
from prometheus_client.parser import text_string_to_metric_families

from baseplate_events import EventQueue, serialize_v2j_event
from baseplate_events.testing import InMemoryEventQueue
from tests.support.spools_written import read_events
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from multiprocessing.process import BaseProcess

GUIDE: Final = Path(__file__).parents[1] / "docs" / "services.md"

#: What the recipes put.
Event = dict[str, object]


class _Client(Protocol):
    """The part of a client of statsd that is used here; the library has no types."""

    def close(self) -> None: ...


def recipe(section: str, *words: str) -> str:
    """Return the block of Python in a section of the guide that has these words."""
    texts: list[str] = re.findall(rf"(?ms)^## {section}\n(.*?)(?=^## |\Z)", GUIDE.read_text())
    blocks: list[str] = re.findall(r"(?ms)^```python\n(.*?)^```", "".join(texts))
    (found,) = [block for block in blocks if all(word in block for word in words)]
    return found


def run_recipe(text: str, **names: object) -> dict[str, object]:
    """Run a recipe where these names are known, and return what names there are after it."""
    names["__name__"] = __name__
    exec(compile(text, str(GUIDE), "exec"), names)
    return names


@pytest.fixture
def queue() -> InMemoryEventQueue[Event]:
    """Return a queue whose counters aren't 0, and whose service goes on."""
    queue: InMemoryEventQueue[Event] = InMemoryEventQueue("clicks", serialize_v2j_event)
    use(queue, put=3, refused=2)
    return queue


def use(queue: EventQueue[Event], *, put: int, refused: int) -> None:
    """Put events, and try to put some that can't be."""
    for number in range(put):
        assert queue.try_put({"number": number})
    for _ in range(refused):
        assert not queue.try_put({"number": object()})


def expected(queue: EventQueue[Event], *, put: int, not_serializable: int) -> Mapping[str, float]:
    """Return all outcomes with their counts."""
    return dict.fromkeys(queue.counters().by_outcome(), 0) | {
        "put": put,
        "not_serializable": not_serializable,
    }


def test_prometheus(queue: InMemoryEventQueue[Event], monkeypatch: pytest.MonkeyPatch) -> None:
    """A scrape has a counter with a label, and the next one has what came in between."""
    registry = prometheus_client.CollectorRegistry()
    monkeypatch.setattr(prometheus_client, "REGISTRY", registry)
    run_recipe(recipe("Counters, depth and capacity", "prometheus_client"), queue=queue)

    def scrape() -> dict[str, float]:
        text = prometheus_client.generate_latest(registry).decode()
        (family,) = text_string_to_metric_families(text)
        assert ("events", "counter") == (family.name, family.type)
        return {sample.labels["outcome"]: sample.value for sample in family.samples}

    assert expected(queue, put=3, not_serializable=2) == scrape()
    use(queue, put=1, refused=4)
    assert expected(queue, put=4, not_serializable=6) == scrape()


def test_opentelemetry(queue: InMemoryEventQueue[Event], monkeypatch: pytest.MonkeyPatch) -> None:
    """A monotonic sum with an attribute, collected twice."""
    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
    monkeypatch.setattr(opentelemetry.metrics, "get_meter", provider.get_meter)
    run_recipe(recipe("Counters, depth and capacity", "opentelemetry"), queue=queue)

    def collect() -> dict[object, float]:
        data = reader.get_metrics_data()
        assert data is not None
        (metric,) = data.resource_metrics[0].scope_metrics[0].metrics
        assert metric.name == "events"
        assert isinstance(metric.data, Sum)
        assert metric.data.is_monotonic
        found: dict[object, float] = {}
        for point in metric.data.data_points:
            assert isinstance(point, NumberDataPoint)
            assert point.attributes is not None
            found[point.attributes["outcome"]] = point.value
        return found

    assert expected(queue, put=3, not_serializable=2) == collect()
    use(queue, put=1, refused=4)
    assert expected(queue, put=4, not_serializable=6) == collect()
    provider.shutdown()


def test_statsd(queue: InMemoryEventQueue[Event]) -> None:
    """What came since the last report is sent, on the wire of statsd; nothing is sent twice."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server, contextlib.ExitStack() as stack:
        server.bind(("127.0.0.1", 0))
        server.settimeout(PATIENCE)
        text = recipe("Counters, depth and capacity", "import statsd")
        names = run_recipe(text.replace("8125", str(server.getsockname()[1])), queue=queue)
        report = cast("Callable[[], None]", names["report_events"])
        stack.callback(cast("_Client", names["client"]).close)

        def reported() -> dict[str, float]:
            report()
            lines = [server.recv(1_024).decode() for _ in queue.counters().by_outcome()]
            pairs = [re.fullmatch(r"acme\.events\.(\w+):(\d+)\|c", line) for line in lines]
            return {pair[1]: float(pair[2]) for pair in pairs if pair}

        assert expected(queue, put=0, not_serializable=0) == reported()  # from the start of the reports on
        use(queue, put=5, refused=1)
        assert expected(queue, put=5, not_serializable=1) == reported()
        assert expected(queue, put=0, not_serializable=0) == reported()


def test_a_refusal_needs_no_more(queue: InMemoryEventQueue[Event]) -> None:
    """The recommended way to put."""
    text = recipe("Refused events: count them, and log them rarely", "try_put")
    run_recipe(text, queue=queue)
    queue.fill()
    run_recipe(text, queue=queue)
    assert (4, 1) == (queue.counters().put, queue.counters().refused.full)


def test_sampling(queue: InMemoryEventQueue[Event], monkeypatch: pytest.MonkeyPatch) -> None:
    """Some views are put, and all other events."""
    text = recipe("Hooks and sampling", "random")
    queue.clear()
    for action in ("click", "view"):
        for chance in (0.05, 0.5):
            monkeypatch.setattr(random, "random", lambda chance=chance: chance)
            run_recipe(text, queue=queue, random=random, event={"action": action, "chance": chance})
    assert [("click", 0.05), ("click", 0.5), ("view", 0.05)] == [
        (event["action"], event["chance"]) for event in queue.events
    ]


def test_a_hook() -> None:
    """It is in front of the serializer, and changes the event."""
    text = recipe("Hooks and sampling", "serialize_v2j_event")
    names = run_recipe(
        text, EventQueue=InMemoryEventQueue, serialize_v2j_event=serialize_v2j_event, BUILD="7"
    )
    hooked = cast("InMemoryEventQueue[Event]", names["hooked"])
    hooked.put({"action": "click"})
    assert [b'{"action":"click","build":"7"}'] == hooked.messages


def test_a_worker_process(tmp_path: Path) -> None:
    """The queue goes to the worker, which puts."""
    with EventQueue("clicks", serialize_v2j_event, spool_directory=tmp_path) as queue:
        names = run_recipe(
            recipe("Worker processes", "forkserver"),
            queue=queue,
            events=[{"number": 1}, {"number": 2}],
            multiprocessing=multiprocessing,
        )
        worker = cast("BaseProcess", names["worker"])
        worker.join(PATIENCE)
        assert worker.exitcode == 0
    assert [b'{"number":1}', b'{"number":2}'] == read_events(tmp_path / "events-clicks")
