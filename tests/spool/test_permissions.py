"""Who may use the directory of a spool, for all owners, groups and modes, against a model."""

from __future__ import annotations

import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.spool.permissions import DirectoryAccess, Fault

ROOT, USER, OTHER = 0, 1_000, 1_001
TEAM = 2_000

accesses = st.builds(
    DirectoryAccess,
    owner=st.sampled_from([ROOT, USER, OTHER]),
    group=st.sampled_from([ROOT, USER, OTHER, TEAM]),
    mode=st.one_of(st.integers(0, 0o7777), st.sampled_from([0o700, 0o2700, 0o770, 0o2770, 0o777, 0o1777])),
    user=st.sampled_from([ROOT, USER]),
    groups=st.frozensets(st.sampled_from([ROOT, USER, OTHER, TEAM]), min_size=1),
    shared=st.booleans(),
)


def words(mode: int) -> tuple[str, str, str]:
    """Split permission bits as `ls` shows them: those of the owner, the group and the others."""
    shown = stat.filemode(mode)
    return shown[1:4], shown[4:7], shown[7:10]


def model(access: DirectoryAccess) -> tuple[str, str, str] | None:
    """Return how `ls` shows the mode that the directory has in the end; None if it can't be used."""
    owner, group, others = words(access.mode)
    mine = access.user == access.owner
    ours = access.group in access.groups
    sticky = others[2] in "tT"
    if access.shared:
        if sticky or not (ours or (mine and access.owner == ROOT)):
            return None
        complete = owner in {"rwx", "rws"} and group == "rws" and others == "---"
        if not mine:
            return (owner, group, others) if complete else None
        return "rws" if owner[2] in "sS" else "rwx", "rws", "---"
    if not mine:
        return None
    setgid = group[2] in "sS"
    if not ours:
        group = "--S" if setgid else "---"
    return "rws" if owner[2] in "sS" else "rwx", group, "--T" if sticky else "---"


@given(accesses)
def test_a_directory_is_judged_as_by_the_model(access: DirectoryAccess) -> None:
    """A directory is refused, or gets the required bits and keeps all others."""
    judged = access.judge()
    assert model(access) == (None if isinstance(judged, Fault) else words(judged))


@given(accesses)
def test_a_judgement_lasts(access: DirectoryAccess) -> None:
    """A directory with the right bits is left alone, and another user's never changes."""
    judged = access.judge()
    if not isinstance(judged, Fault):
        assert judged == access._replace(mode=judged).judge()
        assert access.owner == access.user or judged == access.mode


@given(accesses)
def test_strangers_get_nothing(access: DirectoryAccess) -> None:
    """Only this user and members of a group of this process can use an accepted directory."""
    judged = access.judge()
    if isinstance(judged, Fault):
        return
    assert not judged & stat.S_IRWXO
    if judged & stat.S_IRWXG:
        assert access.group in access.groups or (access.shared and access.owner == access.user == ROOT)


@given(accesses)
def test_owner_and_member_agree(access: DirectoryAccess) -> None:
    """What the owner of a shared directory makes of it is right for every other member of its group."""
    judged = access.judge()
    if access.shared and not isinstance(judged, Fault):
        member = access._replace(mode=judged, user=12_345, groups={access.group})
        assert judged == member.judge()


@given(accesses)
def test_a_refusal_names_both_users_and_a_command(access: DirectoryAccess) -> None:
    """An error is one line with the remedy."""
    fault = access.judge()
    if not isinstance(fault, Fault):
        return
    text = access.explain(fault, "/spool/events-v2")
    owner, user = ("root" if uid == 0 else f"user {uid}" for uid in (access.owner, access.user))
    assert text.startswith(f"it belongs to {owner}, and this process runs as {user}")
    assert text.isprintable()
    assert "/spool/events-v2`" in text
    assert (fault in {Fault.STICKY, Fault.OTHERS, Fault.BITS}) == (f"mode {access.mode:04o}" in text)
    assert (fault is Fault.GROUP) == (f"isn't in its group {access.group} " in text)


@pytest.mark.parametrize(
    ("owner", "group", "mode", "shared", "expected"),
    [
        (USER, USER, 0o700, False, 0o700),
        (USER, USER, 0o755, False, 0o750),  # its own group
        (USER, TEAM, 0o2770, False, 0o2770),  # fsGroup of Kubernetes
        (USER, OTHER, 0o2770, False, 0o2700),  # a group of strangers
        (USER, USER, 0o1777, False, 0o1770),
        (ROOT, TEAM, 0o2770, False, Fault.OWNER),
        (OTHER, USER, 0o700, False, Fault.OWNER),
        (USER, TEAM, 0o700, True, 0o2770),
        (USER, TEAM, 0o2777, True, 0o2770),
        (USER, OTHER, 0o2770, True, Fault.GROUP),
        (ROOT, TEAM, 0o2770, True, 0o2770),
        (OTHER, TEAM, 0o2770, True, 0o2770),
        (ROOT, OTHER, 0o2770, True, Fault.GROUP),
        (OTHER, TEAM, 0o3770, True, Fault.STICKY),
        (OTHER, TEAM, 0o2775, True, Fault.OTHERS),
        (OTHER, TEAM, 0o770, True, Fault.BITS),
        (OTHER, TEAM, 0o700, True, Fault.BITS),
    ],
)
def test_a_service_in_a_team(owner: int, group: int, mode: int, shared: bool, expected: int | Fault) -> None:
    """Examples for a service that runs as a user of its own, who is also in a team's group."""
    access = DirectoryAccess(owner, group, mode, user=USER, groups={USER, TEAM}, shared=shared)
    assert expected == access.judge()


@pytest.mark.parametrize(
    ("owner", "group", "mode", "shared", "expected"),
    [
        (ROOT, OTHER, 0o700, True, 0o2770),  # a setgid directory gave it that group
        (USER, USER, 0o700, False, Fault.OWNER),  # whose owner couldn't read files of root
        (USER, USER, 0o2770, True, Fault.GROUP),  # any user could have made that
        (USER, ROOT, 0o2770, True, 0o2770),
    ],
)
def test_root(owner: int, group: int, mode: int, shared: bool, expected: int | Fault) -> None:
    """Examples for a service that runs as root."""
    access = DirectoryAccess(owner, group, mode, user=ROOT, groups={ROOT}, shared=shared)
    assert expected == access.judge()


def test_the_words_of_refusals() -> None:
    """Errors name the owner of the directory, and the settings or commands that help."""
    root = DirectoryAccess(USER, USER, 0o700, user=ROOT, groups={ROOT}, shared=False)
    assert root.explain(Fault.OWNER, "/a b/events-v2") == (
        "it belongs to user 1000, and this process runs as root, whose files the owner couldn't read; run "
        "the service and its publisher as the same user (Kubernetes: runAsUser), or give both a common group "
        "(Kubernetes: fsGroup), set mode=0o660 for the service and queue.mode = 0660 for the publisher, and "
        "run `chgrp GROUP '/a b/events-v2' && chmod 2770 '/a b/events-v2'`"
    )
    group = DirectoryAccess(ROOT, TEAM, 0o2770, user=USER, groups={USER, OTHER}, shared=True)
    assert group.explain(Fault.GROUP, "/s/events-v2") == (
        "it belongs to root, and this process runs as user 1000, which isn't in its group 2000 (only in "
        "1000, 1001); mode=0o660 needs a group that the users of the service and of its publisher are both "
        "in: add them to one (Kubernetes: fsGroup), and run `chgrp GROUP /s/events-v2 && chmod 2770 "
        "/s/events-v2`"
    )
    sticky = DirectoryAccess(OTHER, TEAM, 0o3770, user=USER, groups={TEAM}, shared=True)
    assert sticky.explain(Fault.STICKY, "/s/events-v2").endswith("run `chmod -t /s/events-v2` as user 1001")
    assert sticky.explain(Fault.OTHERS, "/s/events-v2").endswith(
        "run `chmod o-rwx /s/events-v2` as user 1001"
    )
    assert sticky.explain(Fault.BITS, "/s/events-v2").endswith("run `chmod 2770 /s/events-v2` as user 1001")
