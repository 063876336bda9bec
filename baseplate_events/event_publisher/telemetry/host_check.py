"""Checks the host that a request to the health endpoint names, against DNS rebinding. Pure.

A web page can make its own name resolve to 127.0.0.1, or to another address at which the endpoint listens
(DNS rebinding). The browser of someone who can reach that address then lets the page read the endpoint's
responses, as if the endpoint were the page's own server. But the request names the page's host, and that
can't be an address or `localhost`.

Rules (RFC 9110, 7.2; RFC 9112, 3.2):

1. Any numeric address is accepted, since it can't be a page's name; so are `localhost` and the names that the
   operator lists. Case, a final dot, a port and the zone of an IPv6 address are ignored.
2. A target is a path, never a whole URL, whose host would count instead of Host.
3. A request without a host is accepted: HTTP/1.0 and scripts send none, and every browser sends one.
4. A request with two Host fields is invalid.
"""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING, Final

from ..config.values import is_address

if TYPE_CHECKING:
    from collections.abc import Collection

#: A Host field. A blank before the colon isn't allowed, but other parsers may accept it.
_HOST: Final = re.compile(rb"(?im)^host[ \t]*:([^\r\n]*)")

_AUTHORITY: Final = re.compile(r"(\[[^\]]*\]|[^:\[\]@]*)(?::[0-9]*)?")


def host_of(fields: bytes) -> str | None:
    """Return the host and port that a request names; None if it names none.

    Args:
        fields: Its header fields.

    Raises:
        ValueError: It has several Host fields.
    """
    hosts = _HOST.findall(fields)
    if len(hosts) > 1:
        raise ValueError("several Host fields")
    return hosts[0].decode("latin-1").strip(" \t") or None if hosts else None


def is_allowed(host: str, names: Collection[str]) -> bool:
    """Return whether a host, with or without a port, is one that requests may name.

    Args:
        host: The host that a request names.
        names: The names that the operator lists, in lower case, without a final dot.
    """
    match = _AUTHORITY.fullmatch(host)
    if match is None:
        return False
    name = match[1].lower()
    if name.startswith("["):
        return is_address(socket.AF_INET6, name[1:-1].partition("%")[0])
    name = name.removesuffix(".")
    return name == "localhost" or name in names or is_address(socket.AF_INET, name)
