from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.cli.doctor import findings
from baseplate_events.cli.doctor.findings import Check, Code, Verdict, overall
from tests.support import doctors, strategies


def test_a_code_stands_for_one_finding() -> None:
    """Each code is used in exactly one place of the package."""
    package = Path(findings.__file__).parent
    sources = "".join(path.read_text() for path in package.glob("*.py"))
    uses = Counter(re.findall(r"\bCode\.([A-Z_]+)", sources))
    assert uses == dict.fromkeys(Code.__members__, 1)


def test_a_code_is_a_short_word_for_programs() -> None:
    """Its value is its member's name in kebab case."""
    for code in Code:
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", code.value)
        assert code.value == code.name.lower().replace("_", "-")


def test_every_code_is_declared_with_its_verdict_and_meaning() -> None:
    """Its meaning is declared beside it, after its verdict."""
    assert set(Code.__members__) == set(doctors.DECLARED)


@given(st.lists(strategies.checks))
def test_the_worst_verdict_counts(checks: list[Check]) -> None:
    """A problem outweighs a warning, a warning outweighs ok, and skipped counts as ok."""
    verdicts = {check.verdict for check in checks}
    worst = next((v for v in (Verdict.PROBLEM, Verdict.WARNING) if v in verdicts), Verdict.OK)
    assert worst is overall(checks)
