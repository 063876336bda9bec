from __future__ import annotations

import pytest

from tests.support.tools import missing, need_command, not_installed

pytest_plugins = ["pytester"]

SUITE = """
from tests.support.tools import not_installed, stand_in

def pytest_pycollect_makemodule(module_path, parent):
    return stand_in(not_installed("json", "no_such_module"), module_path, parent)
"""


@pytest.fixture(params=[False, True], ids=["optional", "required"])
def required(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether tools are required."""
    param: bool = request.param
    monkeypatch.setenv("REQUIRE_TOOLS", "1" if param else "")
    return param


def test_a_test_that_lacks_a_tool_is_skipped_unless_tools_are_required(*, required: bool) -> None:
    """What is missing is the reason in both cases."""
    outcome = pytest.fail.Exception if required else pytest.skip.Exception
    with pytest.raises(outcome, match="no root"):
        missing("no root")
    with pytest.raises(outcome, match="there is no no-such-command"):
        need_command("no-such-command")
    need_command("sh")


def test_a_suite_that_cannot_be_imported_has_one_line(pytester: pytest.Pytester, *, required: bool) -> None:
    """Its modules aren't imported, and the summary has one line for all of them."""
    pytester.makeconftest(SUITE)
    pytester.makepyfile(test_one="import no_such_module", test_other="import no_such_module")
    result = pytester.runpytest_inprocess("-ra", "-pno:cacheprovider")
    if required:
        result.assert_outcomes(failed=2)
        result.stdout.fnmatch_lines(["*not installed: no_such_module; `tox -e * runs *"])
    else:
        result.assert_outcomes(skipped=2)
        result.stdout.fnmatch_lines(["SKIPPED [[]2] *not installed: no_such_module; `tox -e * runs *"])


def test_a_suite_that_can_be_imported_is_collected(pytester: pytest.Pytester) -> None:
    """If nothing is missing, the real modules are run."""
    pytester.makeconftest(SUITE.replace("no_such_module", "os"))
    pytester.makepyfile("def test_passes(): pass")
    pytester.runpytest_inprocess("-pno:cacheprovider").assert_outcomes(passed=1)
    assert not_installed("json", "os") is None
