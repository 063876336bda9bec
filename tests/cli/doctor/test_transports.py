"""The doctor's choice of a transport for this host."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.cli.doctor import transports
from baseplate_events.cli.doctor.findings import Code, Verdict
from baseplate_events.cli.doctor.transports import Posix, Spool, find_posix, judge_transport
from baseplate_events.events import SPOOL_VARIABLE
from baseplate_events.transport.limits import SPOOL_REMEDY, HostLimits, QueueSize
from tests.support.doctors import configured, doctor, doctor_in, sound
from tests.support.queues import FEW, SMALL, fresh_name, reader
from tests.support.sandbox import sandbox

if TYPE_CHECKING:
    from pathlib import Path

WANTED = QueueSize(10_000, 8_192)
LESS = QueueSize(48, 8_192)

_CHOSEN = (None, "posix", "spool", "both")


@given(st.sampled_from(Posix), st.sampled_from(Spool), st.sampled_from(_CHOSEN))
def test_one_finding_says_which_suits(posix: Posix, spool: Spool, chosen: str | None) -> None:
    """What is missing is a problem only if there is nothing else; what could be better is a warning."""
    size = {Posix.WANTED: WANTED, Posix.SMALLER: LESS, Posix.NONE: None}[posix]
    check = sound(judge_transport(posix, size, WANTED, spool, chosen))
    assert (check.fields["posix"], check.fields["spool"]) == (posix.value, spool.value)
    assert check.fields["chosen"] == chosen
    if posix is Posix.WANTED:
        expected = Code.TRANSPORT_EITHER if spool is Spool.USABLE else Code.TRANSPORT_POSIX
    elif spool is Spool.USABLE:
        expected = Code.TRANSPORT_SPOOL_UNUSED if chosen == "posix" else Code.TRANSPORT_SPOOL
    else:
        expected = Code.TRANSPORT_SPOOL_UNSET if spool is Spool.UNSET else Code.TRANSPORT_NONE
    assert check.code is expected


def no_others(_name: str | None) -> dict[str, int]:
    """Return that this user has no other queues."""
    return {}


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (HostLimits(65_536, 65_536, None), (Posix.WANTED, WANTED)),
        (HostLimits(10, 8_192, 819_200), (Posix.SMALLER, QueueSize(10, 8_192))),
        (HostLimits(10, 8_192, 100), (Posix.NONE, None)),
    ],
)
def test_a_new_queue_is_what_the_limits_allow(
    monkeypatch: pytest.MonkeyPatch, limits: HostLimits, expected: tuple[Posix, QueueSize | None]
) -> None:
    """By the kernel's rules for an ordinary user."""
    monkeypatch.setattr(transports, "read_limits", lambda: limits)
    monkeypatch.setattr(transports, "charges_of_others", no_others)
    assert find_posix(None, WANTED) == expected


def test_a_queue_that_is_there_counts_as_it_is() -> None:
    """Whatever the limits are now."""
    with fresh_name("/events-test-") as name, reader(name):
        assert find_posix(name, QueueSize(FEW, SMALL)) == (Posix.WANTED, QueueSize(FEW, SMALL))
        assert find_posix(name, WANTED) == (Posix.SMALLER, QueueSize(FEW, SMALL))


def test_under_stock_limits_the_spool_suits(tmp_path: Path) -> None:
    """Without a spool one is advised; with one all is well, even if the POSIX queue is too small."""
    keys = {"max_queue_size": "10000", "max_event_size": "8192"}
    (tmp_path / "spool").mkdir()
    spool = {**keys, "spool__directory": str(tmp_path / "spool"), "spool__max_size": "1048576"}
    with sandbox(tmp_path) as place:
        place.set_up("sysctl", "-q", "-w", "fs.mqueue.msg_max=10", "fs.mqueue.msgsize_max=8192")
        codes: dict[str, tuple[Code, Code]] = {}
        for chosen, more in (
            ("none", keys),
            ("posix", {**spool, "queue__transport": "posix"}),
            ("spool", {**spool, "queue__transport": "spool"}),
            ("both", spool),
        ):
            with configured(tmp_path, **more) as arguments:
                table = doctor_in(place, *arguments, "--no-probe", after="ulimit -S -q 819200")
            codes[chosen] = table["transport"].code, table["queue"].code
            if chosen == "spool":
                assert {check.name for check in table.checks}.isdisjoint({"kernel limits", "RLIMIT_MSGQUEUE"})
                assert table["queue"].verdict is Verdict.SKIPPED
    assert codes == {
        "none": (Code.TRANSPORT_SPOOL_UNSET, Code.QUEUE_MISSING_SMALLER),
        "posix": (Code.TRANSPORT_SPOOL_UNUSED, Code.QUEUE_MISSING_SMALLER),
        "spool": (Code.TRANSPORT_SPOOL, Code.QUEUE_UNUSED),
        "both": (Code.TRANSPORT_SPOOL, Code.QUEUE_MISSING_SMALLER),
    }


def test_a_queue_that_cant_be_made_is_no_problem_beside_a_spool(tmp_path: Path) -> None:
    """The publisher delivers the spool; alone, the same queue is a problem."""
    (tmp_path / "spool").mkdir()
    spool = {"spool__directory": str(tmp_path / "spool"), "spool__max_size": "1048576"}
    found: list[tuple[Code, Code]] = []
    with sandbox(tmp_path) as place:
        for keys in (spool, {}):
            with configured(tmp_path, **keys) as arguments:
                table = doctor_in(place, *arguments, "--no-probe", after="ulimit -S -q 100")
            found.append((table["queue"].code, table["transport"].code))
    assert found == [
        (Code.QUEUE_MISSING_BESIDE_SPOOL, Code.TRANSPORT_SPOOL),
        (Code.QUEUE_MISSING_IMPOSSIBLE, Code.TRANSPORT_SPOOL_UNSET),
    ]


def test_a_spool_that_cant_be_used_is_none(tmp_path: Path) -> None:
    """A small queue then suits by itself."""
    missing = tmp_path / "missing"
    with configured(tmp_path, max_queue_size="1", spool__directory=str(missing)) as arguments:
        missing.rmdir()
        table = doctor(*arguments, "--no-probe")
    assert table["spool folder"].code is Code.SPOOL_DIRECTORY_MISSING
    assert table["transport"].code is Code.TRANSPORT_POSIX


def test_without_a_configuration_the_variable_names_the_spool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for services, if a queue is named."""
    monkeypatch.delenv(SPOOL_VARIABLE, raising=False)
    assert doctor("--queue-name", "v2")["transport"].fields["spool"] == "unset"
    monkeypatch.setenv(SPOOL_VARIABLE, str(tmp_path))
    table = doctor("--queue-name", "v2")
    assert table["spool folder"].fields["path"] == f"{tmp_path}/events-v2"
    assert table["transport"].fields["spool"] == "usable"
    assert list(tmp_path.iterdir()) == []


def test_the_words_on_transports() -> None:
    """The text says which transport suits, why, and what to set."""

    def judge(posix: Posix, spool: Spool, chosen: str | None = None) -> tuple[str, str]:
        size = {Posix.WANTED: WANTED, Posix.SMALLER: LESS, Posix.NONE: None}[posix]
        check = judge_transport(posix, size, WANTED, spool, chosen)
        return check.found, check.remedy

    smaller = f"the limits of this host allow a POSIX queue of {LESS} instead of {WANTED}"
    assert judge(Posix.WANTED, Spool.USABLE) == (
        f"both suit: a POSIX queue of {WANTED}, and the spool",
        "",
    )
    assert judge(Posix.WANTED, Spool.UNSET) == (
        f"the POSIX queue suits, with {WANTED}; no spool is configured",
        "",
    )
    assert judge(Posix.WANTED, Spool.UNUSABLE) == (
        f"the POSIX queue suits, with {WANTED}; the spool can't be used",
        "",
    )
    assert judge(Posix.SMALLER, Spool.USABLE) == (f"the spool suits and can be used; {smaller}", "")
    assert judge(Posix.SMALLER, Spool.USABLE, "posix") == (
        f"the spool suits and can be used: {smaller}, which is what services use",
        f"set queue.transport = both, or spool; {SPOOL_REMEDY}",
    )
    assert judge(Posix.SMALLER, Spool.UNSET) == (
        f"the spool suits: {smaller}",
        f"set spool.directory to a directory that services and publisher share; {SPOOL_REMEDY}",
    )
    assert judge(Posix.NONE, Spool.UNUSABLE) == (
        "neither suits: the limits of this host allow no POSIX queue, and the spool can't be used",
        "see the remedy of the spool folder or its file system; a spool doesn't depend on kernel limits",
    )
