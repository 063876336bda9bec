"""What belongs to a process starts again in a forked child."""

from __future__ import annotations

import os
from _weakrefset import WeakSet  # as `threading` does: `weakref` takes longer to import
from functools import cache
from typing import Protocol


class Restartable(Protocol):
    """What a forked child doesn't go on with."""

    def restart(self) -> None:
        """Start again, in a child that has one thread; any lock may be held by a thread that isn't there."""


_followers: WeakSet[Restartable] = WeakSet()


def follow_forks(follower: Restartable) -> None:
    """Have this restarted in each child from now on, before `os.fork` returns there."""
    _hook()
    _followers.add(follower)


@cache
def _hook() -> None:
    # Not at import: a service that puts nothing has no hook.
    os.register_at_fork(after_in_child=_restart_all)


def _restart_all() -> None:
    for follower in list(_followers):
        follower.restart()
