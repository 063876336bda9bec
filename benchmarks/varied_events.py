"""Rich events that differ from each other as much as those of production do.

How well events compress, and so how fast a publisher is, depends on how much they differ. Each of these
has an id, a time, a user, a place, posts and counters of its own: a batch of them shrinks to about 1/7.5 at
gzip level 1 and to 1/9.8 at level 9.
"""

from __future__ import annotations

import random
import string
from typing import Final

from baseplate_events import serialize_v2_event
from tests.support.schema_samples import rich_event

#: Distinct events. More than fit into one batch, so that none repeats in what is compressed together.
DISTINCT: Final = 1_000

#: Places where users are.
_PLACES: Final = 500

_LETTERS: Final = string.ascii_lowercase + string.digits


def make_events(count: int = DISTINCT) -> list[bytes]:
    """Return distinct rich events, serialized: always the same, about 730 bytes each and 740 at most."""
    chance = random.Random(0)
    places = [(round(chance.uniform(10, 60), 4), round(chance.uniform(1, 9.9), 4)) for _ in range(_PLACES)]
    return [_serialize(serial, chance, places) for serial in range(count)]


def make_noise(count: int = DISTINCT) -> list[bytes]:
    """Return distinct events of the same size, which gzip shrinks to no less than half: always the same."""
    chance = random.Random(0)
    return [
        b'{"id":%d,"noise":"%b"}' % (serial, chance.randbytes(350).hex().encode()) for serial in range(count)
    ]


def _serialize(serial: int, chance: random.Random, places: list[tuple[float, float]]) -> bytes:
    rich = rich_event(serial=serial)
    noise = f"{chance.getrandbits(128):032x}"
    rich.event.uuid = "-".join((noise[:8], noise[8:12], noise[12:16], noise[16:20], noise[20:]))
    rich.event.client_timestamp += chance.randrange(100_000_000) / 8
    rich.user.id = chance.randrange(100_000_000, 1_000_000_000)
    rich.user.geo.latitude, rich.user.geo.longitude = chance.choice(places)
    for impression in rich.impressions:
        impression.id = "t3_" + "".join(chance.choices(_LETTERS, k=3))
    rich.impressions[0].score = chance.randrange(100, 1_000) / 1_000
    rich.experiments = {chance.randrange(10, 100), chance.randrange(100, 1_000)}
    rich.counts = {"views": chance.randrange(10, 100), "votes": chance.randrange(10)}
    return serialize_v2_event(rich)
