"""Whether a request to the health endpoint may come from whoever sent it, by the host that it names. Pure.

A web page can make its own name stand for 127.0.0.1, or for another address at which the endpoint listens
(DNS rebinding). The browser of someone who reaches that address then lets the page read what the endpoint
answers, as if it were the page's own server. But the request names the page's host, and no page can have an
address or `localhost` for its name.

Rules (RFC 9110, 7.2; RFC 9112, 3.2):

1. An address in digits is accepted, whichever, since no name stands for it; so is `localhost`, and so are the
   names that the operator lists. Upper and lower case, a final dot, a port and the zone of an IPv6 address
   don't matter.
2. The target counts if it is a whole URL; then Host is ignored. Otherwise Host counts.
3. A request without a host is accepted: HTTP/1.0 and scripts send none, and every browser sends one.
4. Two Host fields are no request that can be read.
"""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection

#: A Host field. A blank before the colon is not allowed there, but others may read it so.
_HOST: Final = re.compile(rb"(?im)^host[ \t]*:([^\r\n]*)")

#: A target that is a whole URL, and its authority.
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)")

_AUTHORITY: Final = re.compile(r"(\[[^\]]*\]|[^:\[\]@]*)(?::[0-9]*)?")


def host_of(target: str, fields: bytes) -> str | None:
    """Return the host and port that a request names; None if it names none.

    Args:
        target: The target of its request line.
        fields: Its header fields.

    Raises:
        ValueError: It has several Host fields.
    """
    hosts = _HOST.findall(fields)
    if len(hosts) > 1:
        raise ValueError("several Host fields")
    if match := _URL.match(target):
        return match[1] or None
    return hosts[0].decode("latin-1").strip(" \t") or None if hosts else None


def is_allowed(host: str, names: Collection[str]) -> bool:
    """Return whether a host, with or without a port, is one that requests may name.

    Args:
        host: What a request names.
        names: The names that the operator lists, in lower case, without a final dot.
    """
    match = _AUTHORITY.fullmatch(host)
    if match is None:
        return False
    name = match[1].lower()
    if name.startswith("["):
        return _is_address(socket.AF_INET6, name[1:-1].partition("%")[0])
    name = name.removesuffix(".")
    return name == "localhost" or name in names or _is_address(socket.AF_INET, name)


def _is_address(family: int, text: str) -> bool:
    try:
        socket.inet_pton(family, text)
    except (OSError, ValueError):
        return False
    return True
