"""The inputs that fuzzing has found: what must hold for any bytes holds for these."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NoReturn

import pytest

from baseplate_events.spool.format import Header
from tests import test_thrift_json
from tests.fuzz import targets
from tests.fuzz.__main__ import CORPUS, main
from tests.fuzz.targets import TARGETS
from tests.json_writer import test_writer

if TYPE_CHECKING:
    from types import ModuleType

#: What each target tries: where it is, and its name there.
TRIED: Final[dict[str, tuple[ModuleType | type, str]]] = {
    "segment": (targets, "SegmentParser"),
    "segment-header": (Header, "decode"),
    "configuration": (targets, "load_settings"),
    "http-response": (targets, "ResponseReader"),
    "collector-body": (targets, "sealed"),
    "collector-request": (targets, "check_batch"),
    "ledger": (targets, "LetterFile"),
    "json": (targets, "serialize_v2j_event"),
    "typed-json": (test_writer, "serialize_v2j_event"),
    "thrift-json": (test_thrift_json, "write_struct"),
}


def _run_all(name: str) -> None:
    for path in sorted((CORPUS / name).iterdir()):
        TARGETS[name].run(path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_passes(name: str) -> None:
    """Nothing that was found before fails."""
    _run_all(name)


@pytest.mark.parametrize("name", TARGETS)
def test_a_failure_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of what a target tries is a failure of the target, and its corpus gets there."""

    def fail(*_: object, **__: object) -> NoReturn:
        raise ZeroDivisionError

    monkeypatch.setattr(*TRIED[name], fail)
    with pytest.raises(ZeroDivisionError):
        _run_all(name)


def test_an_input_can_be_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    """A file that failed runs again by a command; an unknown target is an error that lists all."""
    path = next((CORPUS / "json").iterdir())
    assert main(["--repeat", str(path), "json"]) == 0
    with pytest.raises(SystemExit):
        main(["nothing"])
    error = capsys.readouterr().err
    assert all(name in error for name in TARGETS)
