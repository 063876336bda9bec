"""The addresses of a host: which to try first. Pure except for a lock.

After a failed attempt at one address, the next attempt begins at another. Addresses that failed lately come
last, and among them the one that failed longest ago comes first. Otherwise the order is the resolver's, which
spreads the load.
"""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

#: An address of a socket: host, port, and more for IPv6.
Address: TypeAlias = tuple[Any, ...]

#: Family, type, protocol, canonical name and address, as from `socket.getaddrinfo`.
Entry: TypeAlias = tuple[int, int, int, str, Address]

#: Seconds after which a failure is forgotten, so that a recovered address gets its share of the load. If it
#: hasn't recovered, that costs one timeout: 1 % of the time with the default of 3 seconds.
FORGET_AFTER: Final = 300.0


class AddressBook:
    """The addresses that failed lately. Shared by all senders, so that each failure costs one attempt."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failed_at: dict[Address, float] = {}

    def order(self, entries: Iterable[Entry], now: float) -> list[Entry]:
        """Return the distinct entries in the order in which to try them; `now` is in monotonic seconds."""
        with self._lock:
            self._forget(now)
            failed_at = dict(self._failed_at)
        return sorted(dict.fromkeys(entries), key=lambda entry: failed_at.get(entry[-1], -math.inf))

    def record_failure(self, address: Address, now: float) -> None:
        """Record that an attempt failed at an address."""
        with self._lock:
            self._forget(now)
            self._failed_at[address] = now

    def _forget(self, now: float) -> None:
        self._failed_at = {key: at for key, at in self._failed_at.items() if now - at < FORGET_AFTER}
