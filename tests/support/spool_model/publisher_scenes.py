"""Random scenes of publishers."""

from __future__ import annotations

import errno
from random import Random
from typing import TYPE_CHECKING, Literal, NamedTuple

from .programs import Append, Capacity, Destroy, Fork, Send, Sleep, Thread
from .publisher_deeds import Harm, Mood, Publish, Put, Shape, Syncs
from .publisher_world import PublisherWorld
from .schedules import Rare, Replay

if TYPE_CHECKING:
    from .publisher import PublisherCode
    from .publisher_deeds import Deed

_FULL, _BROKEN = errno.ENOSPC, errno.EIO

#: With which errors calls fail in runs with a disk that breaks down: of writers and relay, of the reader, of
#: the ledger.
_ERRORS: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("create", "write", "publish", "open"), (_FULL, _BROKEN)),
    **dict.fromkeys(("used", "status", "lock", "remove", "statvfs"), (_BROKEN,)),
    **dict.fromkeys(("names", "size of", "open file", "size", "read", "lock exclusively"), (_BROKEN,)),
    **dict.fromkeys(("delete", "punch", "transaction", "open ledger"), (_BROKEN,)),
}
_SYNC_ERRORS: dict[str, tuple[int, ...]] = dict.fromkeys(("sync", "sync names"), (_BROKEN,))


#: Before these, faults are more likely.
_CRITICAL = frozenset({"transaction", "committed", "delete", "receive", "publish"})


class PublisherScene(NamedTuple):
    """Programs that run one after another to their end; the remaining tasks go on after the last.

    Attributes:
        shape: The programs and the settings of publishers.
        failing: The probability that the collector fails until the last program has ended.
    """

    shape: Shape
    failing: float = 1.0


#: Faults of an earlier engine, and of this one when it was new.
SCENES: dict[str, PublisherScene] = {
    "a full disk, a full queue and a stop": PublisherScene(
        Shape(
            (
                (Append((20, 20, 20)),),
                (Put("ggg"),),
                (Publish(4), Publish(4)),
                (Capacity(0), Put("ggggg")),
                (Publish(4),),
            )
        )
    ),
    "a deleted folder": PublisherScene(
        Shape(((Append((20,)),), (Put("g"),), (Publish(4, "stay"),), (Destroy(),), (Append((20, 20)),)))
    ),
    "an event that is none, at a stop": PublisherScene(Shape(((Put("igg"),), (Publish(2),)), burst=1)),
    "a segment in the same tick as another": PublisherScene(
        Shape(((Append((20,)),), (Put("ggg"),), (Publish(6), Publish(6))), segment_size=100), failing=0.0
    ),
    "a failed sync on a full disk": PublisherScene(
        Shape(
            ((*[Append((20,) * 4)] * 4,), (Capacity(0), Syncs(working=False)), (Publish(60, "stay"),)),
            batch_size=60,
            batch_events=1,
            sync="batch",
        )
    ),
    "a disk on which no sync works": PublisherScene(
        Shape(((Append((20, 20)),), (Put("gg"),), (Syncs(working=False),), (Publish(20),)), sync="event")
    ),
}


def run_scene(name: str, code: PublisherCode | None = None) -> PublisherWorld:
    """Run a scene, and return its world."""
    scene = SCENES[name]
    world = PublisherWorld(scene.shape, Replay({}), Random(1), code=code, mood=(scene.failing, 1.0))
    world.run()
    return world


def run_program(seed: int, code: PublisherCode | None = None) -> PublisherWorld:
    """Run the random scene of a seed, and return its world."""
    random = Random(seed)
    breaks = random.random() < 0.3
    syncs: Literal["never", "batch", "event"] = random.choice(["never", "never", "batch", "event"])
    errors = dict(_ERRORS) if breaks else {}
    if syncs != "never" and random.random() < 0.5:
        errors.update(_SYNC_ERRORS)
    segment_size = random.choice([100, 140, 200, 400])
    lies = random.random() < 0.1
    refuses = random.random() < 0.4
    shape = Shape(
        tuple(_programs(random, refuses=refuses, lies=lies)),
        # The smallest is like that of real ones. If all in it, or in memory, is refused, nothing shows that
        # other events are not.
        max_size=segment_size * random.choice([1000] if refuses else [4, 8, 1000]),
        segment_size=segment_size,
        capacity=random.choice([1, 2, 5, 10]),
        burst=random.choice([1, 2, 5, 1000]),
        batch_size=random.choice([1000] if refuses else [100, 200, 1000]),
        batch_events=random.choice([1, 2, 3, 10]),
        concurrency=random.choice([1, 1, 2, 3]),
        chunk=random.choice([30, 100, 100_000]),
        sync=syncs,
        drain=random.random() < 0.8,
        lies=lies,
        ticks=random.random() < 0.5,
        punches=random.random() < 0.5,
        keeps_full=random.random() < 0.7 and not refuses,
        errors=errors,
    )
    strategy = Rare(
        random,
        faults=random.choice([0, 1, 2, 4, 8]),
        rate=random.choice([0.002, 0.01, 0.05]),
        switching=random.choice([0.02, 0.1, 0.3]),
        critical=_CRITICAL,
    )
    world = PublisherWorld(
        shape,
        strategy,
        random,
        code=code,
        mood=(random.choice([0.0, 0.0, 0.2, 0.6, 0.95, 1.0]), random.choice([0.1, 0.5, 0.9])),
        kinds="ggggr" if refuses else "g",
    )
    world.run()
    return world


def _programs(random: Random, *, refuses: bool, lies: bool) -> list[tuple[Deed, ...]]:
    trusting = 0.0 if lies else 0.5
    programs = [_service(random, depth=1, trusting=trusting) for _ in range(random.randint(0, 2))]
    kinds = ["g", "gg", "ggg", "gggggg", "ggr" if refuses else "gg", "gig"]
    for _ in range(random.randint(0 if programs else 1, 2)):
        pause = Sleep(random.choice([0.0, 0.1, 1.0]))
        programs.append(())
        for _ in range(random.randint(1, 10)):
            programs[-1] += (Put(random.choice(kinds)), pause)
    runs = [Publish(random.choice([2, 10, 20, 40])) for _ in range(random.randint(1, 2))]
    if random.random() < 0.5:
        runs.append(Publish(random.choice([5, 10]), "stay"))
    programs.append(tuple(runs))
    if random.random() < 0.3:
        spare = random.randint(0, 400)
        programs.append(
            (
                Capacity(spare),
                Sleep(random.choice([0.0, 0.3, 1.1])),
                *([Capacity(None)] if random.random() < 0.5 else []),
            )
        )
    if random.random() < 0.2:
        programs.append((Syncs(working=False), Sleep(random.choice([0.0, 1.1, 5.0])), Syncs(working=True)))
    if random.random() < 0.12:
        programs.append((Destroy(),))
    if random.random() < 0.1:
        programs.append((Harm(random.choice(["delete", "empty", "cut", "zeros"])),))
    if random.random() < 0.2:
        programs.append((Harm("lock"), Sleep(random.choice([0.1, 1.0, 40.0])), Harm("unlock")))
    if random.random() < 0.3:
        programs.append(
            (Mood(random.choice([0.0, 0.5, 1.0])), Sleep(1.0), Mood(random.choice([0.0, 0.5, 1.0])))
        )
    random.shuffle(programs)
    return programs


def _service(random: Random, *, depth: int, trusting: float) -> tuple[Deed, ...]:
    made: list[Append | Send | Sleep | Thread | Fork] = []
    for _ in range(random.randint(1, 8)):
        dice = random.random()
        size = random.choice([20, 20, 30, 60])
        if dice < 0.4:
            made.append(Append(tuple([size] * random.choice([1, 1, 1, 2, 5]))))
        elif dice < 0.75:
            made.append(Send(size, trusted=random.random() < trusting))
        elif dice < 0.9:
            made.append(Sleep(random.choice([0.001, 0.25, 1.0, 61.0])))
        elif depth:
            inner = _service(random, depth=0, trusting=trusting)
            made.append(Thread(inner) if random.random() < 0.5 else Fork(inner))  # type: ignore[arg-type]
    return tuple(made) or (Append((20,)),)
