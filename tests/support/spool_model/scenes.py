"""The programs of processes in the explorations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .programs import Append, Capacity, Destroy, Fork, Handle, Look, Send, Sleep, Thread
from .world import Setting

if TYPE_CHECKING:
    from random import Random

    from .programs import Operation, Program

#: Bytes of a small event with its record, and of a header.
_EVENT, _HEADER = 20, 60

#: A segment that takes a header and three small events.
_THREE = _HEADER + 3 * (16 + _EVENT) + 2

#: Each is small enough to be explored exhaustively.
SCENES: dict[str, Setting] = {
    "one writer": Setting(((Append(), Send(), Send()), (Look(2),)), segment_size=_THREE),
    "two writers": Setting(((Append(), Send()), (Append(), Send()), (Look(2),)), segment_size=_THREE),
    "rotation": Setting(((Append(), Send(), Append((20, 20))), (Look(2),)), segment_size=120),
    "threads": Setting(
        ((Append(), Thread((Append(), Send())), Send(), Append()), (Look(),)), segment_size=_THREE
    ),
    "threads that rotate": Setting(
        ((Append(), Thread((Send(trusted=False),)), Append((60,)), Append((60,))), (Look(),)),
        segment_size=140,
    ),
    "threads that start at once": Setting(
        ((Thread((Append(), Append(), Append())), Append()), (Look(2),)), segment_size=_THREE
    ),
    "signals": Setting(
        ((Handle(), Append(), Send(), Append(), Append((20, 20))), (Look(2),)), segment_size=_THREE
    ),
    "children": Setting(((Append(), Fork((Send(), Append())), Send()), (Look(2),)), segment_size=_THREE),
    "children without a reader": Setting(
        ((Append(), Fork((Send(), Append())), Send()),), segment_size=_THREE
    ),
    "a child in the middle of a start": Setting(
        ((Append(), Thread((Append((60,)),)), Fork((Append(),))), (Look(2),)), segment_size=_THREE
    ),
    "a full disk": Setting(
        (
            (
                *(Append(), Capacity(50), Append((20, 20, 20)), Append(), Sleep(0.3), Append()),
                *(Capacity(None), Sleep(0.3), Append((20, 20))),
            ),
            (Look(2),),
        ),
        segment_size=_THREE,
    ),
    "a pause that ends": Setting(
        (
            (
                Append(),
                Capacity(0),
                Append(),
                Sleep(0.2),
                Capacity(None),
                Thread((Sleep(0.06), Append())),
                Append(),
            ),
            (Look(),),
        ),
        segment_size=100,
        quiet=frozenset({"open", "used", "status"}),
    ),
    "a full spool": Setting(
        ((*[Append()] * 4, Sleep(0.3), Append(), Sleep(0.3), Append(), Append()), (Look(2),)),
        max_size=140,
        segment_size=_HEADER + 2 * (16 + _EVENT) + 2,
    ),
    "a deleted directory": Setting(
        ((Append(), Send(), Append(), Append()), (Destroy(),), (Look(),)), segment_size=_THREE
    ),
}


def large_setting(random: Random) -> Setting:
    """Return random programs of several processes."""
    programs = [_program(random, depth=2) for _ in range(random.randint(1, 4))]
    programs += [(Look(random.randint(1, 4)),) for _ in range(random.choice([1, 1, 1, 0]))]
    if random.random() < 0.25:
        spare = random.randint(0, 300)
        programs.append((Capacity(spare), Sleep(random.choice([0.0, 0.3, 1.1])), Capacity(None), Sleep(0.3)))
    if random.random() < 0.15:
        programs.append((Destroy(),))
    return Setting(
        tuple(programs),
        max_size=random.choice([300, 600, 100_000]),
        segment_size=random.choice([100, 140, 200, 400]),
    )


def _program(random: Random, *, depth: int) -> Program:
    made: list[Operation] = [Handle(trusted=random.random() < 0.5)] if random.random() < 0.2 else []
    for _ in range(random.randint(1, 6)):
        dice = random.random()
        if dice < 0.35:
            made.append(Append(tuple(_size(random) for _ in range(random.choice([1, 1, 1, 2, 5])))))
        elif dice < 0.75:
            made.append(Send(_size(random), trusted=random.random() < 0.5))
        elif dice < 0.85:
            made.append(Sleep(random.choice([0.001, 0.25, 1.0, 61.0])))
        elif depth:
            inner = _program(random, depth=depth - 1)
            made.append(Thread(inner) if random.random() < 0.5 else Fork(inner))
    return tuple(made)


def _size(random: Random) -> int:
    return random.choice([20, 20, 30, 80, 500])
