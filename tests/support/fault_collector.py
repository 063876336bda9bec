"""A collector that misbehaves on request: a real HTTP server on loopback whose faults are scripted.

Rules:

1. Each request takes the next behaviour of the script when its first byte arrives; the last one repeats. A
   connection that never sends a byte takes none.
2. A request is recorded when it was read in full, before anything is answered; one that isn't read isn't
   recorded, but counted.
3. Nothing outlives `FaultCollector.close`: it releases hanging requests, ends all connections, joins all
   threads.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias, final

import trustme

from baseplate_events._compat import assert_never
from tests.support.server_connection import RecordedRequest, ServerConnection
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

#: Bytes that are sent at a time.
_CHUNK: Final = 65_536


@dataclass(frozen=True, slots=True)
class Respond:
    """Read the request and answer it.

    Attributes:
        status: The HTTP status.
        headers: Headers besides Content-Length.
        body: The body.
        close: End the connection after the answer without announcing it.
    """

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b"{}"
    close: bool = False


@dataclass(frozen=True, slots=True)
class Raw:
    """Read the request and answer with these bytes, whatever they are.

    Attributes:
        answer: The bytes.
        close: End the connection after them.
        late: Unsolicited bytes, sent at `FaultCollector.release`.
    """

    answer: bytes
    close: bool = True
    late: bytes = b""


@dataclass(frozen=True, slots=True)
class Early:
    """Answer with these bytes as soon as a request begins.

    Attributes:
        answer: The bytes.
        read: Then read the request and go on; otherwise end the connection, which the system resets, since
            bytes were left unread.
    """

    answer: bytes
    read: bool = False


@dataclass(frozen=True, slots=True)
class Flood:
    """Read the request and answer it endlessly, as fast as the client reads, until it leaves.

    Attributes:
        start: What the answer begins with.
        filler: What follows it, repeatedly.
    """

    start: bytes
    filler: bytes


@dataclass(frozen=True, slots=True)
class Tunnel:
    """Read a CONNECT, accept it, and connect it to this address, whatever it asks for."""

    address: tuple[str, int]


@dataclass(frozen=True, slots=True)
class Drop:
    """End the connection without an answer.

    Attributes:
        after_reading: Read and record the request before ("commit, then drop").
        reset: End it with a reset. The system resets it anyway if bytes were left unread.
    """

    after_reading: bool = False
    reset: bool = False


@dataclass(frozen=True, slots=True)
class Hang:
    """Say nothing until `FaultCollector.release`, then end the connection.

    Attributes:
        after_reading: Read and record the request before; otherwise a large one can't even be sent in full.
    """

    after_reading: bool = True


@dataclass(frozen=True, slots=True)
class Drip:
    """Read the request and answer endlessly, a byte at a time, until the client leaves.

    Attributes:
        start: What the answer begins with.
        filler: The byte that follows endlessly.
        interval: Seconds between two bytes.
    """

    start: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"
    filler: bytes = b" "
    interval: float = 0.01


@dataclass(frozen=True, slots=True)
class HugeBody:
    """Read the request and answer it with a body of this many bytes, or until the client leaves."""

    size: int
    status: int = 200


Behaviour: TypeAlias = Respond | Raw | Early | Drop | Hang | Drip | Flood | HugeBody | Tunnel

OK: Final = Respond()

#: What comes back when something else than HTTP listens on the port.
GARBAGE_STATUS_LINE: Final = Raw(b"SSH-2.0-OpenSSH_9.7\r\n")

#: A body that ends before its Content-Length.
SHORT_BODY: Final = Raw(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"accepted":')


def redirect(url: str, status: int = 302) -> Respond:
    """Return a redirection to another URL."""
    return Respond(status, (("Location", url),), b"")


def stranger_tls(identity: str = "127.0.0.1") -> ssl.SSLContext:
    """Return a server context with a good certificate from an unknown authority."""
    return trusted_tls(identity)[0]


def trusted_tls(identity: str = "127.0.0.1") -> tuple[ssl.SSLContext, bytes]:
    """Return a server context, and the certificate of its authority in PEM for the client to trust."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with authority.issue_cert(identity).private_key_and_cert_chain_pem.tempfile() as path:
        context.load_cert_chain(path)
    return context, authority.cert_pem.bytes()


@final
class FaultCollector:
    """Listens on a free port of loopback from construction to `close()`; a context manager.

    Args:
        script: What to do with each request, in their order over all connections; the last repeats.
        ssl_context: Where given, it speaks HTTPS.
        listener: A bound loopback socket that doesn't listen yet.
        greeting: What it sends on each connection before any request.
    """

    def __init__(
        self,
        script: Iterable[Behaviour] = (OK,),
        *,
        ssl_context: ssl.SSLContext | None = None,
        listener: socket.socket | None = None,
        greeting: bytes = b"",
    ) -> None:
        self._script = iter(script)
        self._behaviour: Behaviour = OK
        self._ssl_context = ssl_context
        self._greeting = greeting
        self._changed = threading.Condition()
        self._requests: list[RecordedRequest] = []
        self._started = 0
        self._released = threading.Event()
        self._closing = threading.Event()
        self._connections: list[ServerConnection] = []
        self._threads: list[threading.Thread] = []
        self._failures: list[Exception] = []
        self._listener = listener or socket.create_server(("127.0.0.1", 0))
        self._listener.listen(128)
        host: str
        host, port = self._listener.getsockname()[:2]
        self.address: Final = (host, port)
        scheme = "http" if ssl_context is None else "https"
        self.url: Final = f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
        self._acceptor = threading.Thread(target=self._accept, name="fault-collector", daemon=True)
        self._acceptor.start()

    @property
    def requests(self) -> list[RecordedRequest]:
        """The requests that were read in full."""
        with self._changed:
            return list(self._requests)

    @property
    def started(self) -> int:
        """How many requests took a behaviour: all whose first byte arrived."""
        with self._changed:
            return self._started

    @property
    def connections(self) -> int:
        """How many connections were accepted."""
        with self._changed:
            return len(self._connections)

    def wait_for_requests(self, number: int) -> list[RecordedRequest]:
        """Return the requests as soon as there are so many.

        Raises:
            TimeoutError: They didn't come.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._requests) >= number, PATIENCE):
                raise TimeoutError(f"{len(self._requests)} of {number} requests came")
            return list(self._requests)

    def wait_for_starts(self, number: int) -> None:
        """Return as soon as the first bytes of so many requests have come.

        Raises:
            TimeoutError: They didn't come.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._started >= number, PATIENCE):
                raise TimeoutError(f"{self._started} of {number} requests began")

    def change_script(self, *script: Behaviour) -> None:
        """Forget what is left of the script; requests to come follow this one."""
        with self._changed:
            self._script = iter(script)

    def release(self) -> None:
        """End all hanging connections, and send late bytes; from now on nothing hangs or is late."""
        self._released.set()

    def close(self) -> None:
        """End everything.

        Raises:
            RuntimeError: A thread doesn't end.
            Exception: The error in the thread of a connection, unless the client left.
        """
        self._closing.set()
        self.release()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join(PATIENCE)
        self._listener.close()
        for connection in self._connections:
            connection.interrupt()
        for thread in self._threads:
            thread.join(PATIENCE)
        if self._acceptor.is_alive() or any(thread.is_alive() for thread in self._threads):
            raise RuntimeError("a thread of the fault collector doesn't end")
        for failure in self._failures:
            raise failure

    def __enter__(self) -> FaultCollector:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self._listener.accept()
            except OSError:
                return
            with self._changed:
                connection = ServerConnection(accepted, len(self._connections) + 1)
                self._connections.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: ServerConnection) -> None:
        try:
            if self._ssl_context is not None:
                connection.start_tls(self._ssl_context)
            connection.send(self._greeting)
            while connection.await_request() and self._handle(connection, self._next_behaviour()):
                pass
        except OSError:
            pass  # The client left, or didn't like the certificate.
        except Exception as exc:  # noqa: BLE001 (it is raised where the test sees it)
            self._failures.append(exc)
        finally:
            connection.close()

    def _next_behaviour(self) -> Behaviour:
        with self._changed:
            self._behaviour = next(self._script, self._behaviour)
            self._started += 1
            self._changed.notify_all()
            return self._behaviour

    def _record(self, connection: ServerConnection) -> None:
        request = connection.read_request()
        with self._changed:
            self._requests.append(request)
            self._changed.notify_all()

    def _handle(self, connection: ServerConnection, behaviour: Behaviour) -> bool:
        """Handle a request as scripted; return whether the connection goes on."""
        match behaviour:
            case Early() | Drop(after_reading=False) | Hang(after_reading=False):
                pass
            case _:
                self._record(connection)
        match behaviour:
            case Respond():
                connection.send(
                    _head(behaviour.status, behaviour.headers, len(behaviour.body)) + behaviour.body
                )
                return not behaviour.close
            case Raw():
                connection.send(behaviour.answer)
                if behaviour.late:
                    self._released.wait()
                    connection.send(behaviour.late)
                return not behaviour.close
            case Early():
                connection.send(behaviour.answer)
                if behaviour.read:
                    self._record(connection)
                    return True
            case Drop():
                if behaviour.reset:
                    connection.reset()
            case Hang():
                self._released.wait()
            case Drip():
                self._drip(connection, behaviour)
            case Flood():
                connection.send(behaviour.start)
                filler = behaviour.filler * (_CHUNK // len(behaviour.filler))
                while True:
                    connection.send(filler)
            case Tunnel():
                connection.relay(behaviour.address)
            case HugeBody():
                connection.send(_head(behaviour.status, (), behaviour.size))
                for sent in range(0, behaviour.size, _CHUNK):
                    connection.send(b" " * min(_CHUNK, behaviour.size - sent))
            case _:
                assert_never(behaviour)
        return False

    def _drip(self, connection: ServerConnection, drip: Drip) -> None:
        for place in range(len(drip.start)):
            connection.send(drip.start[place : place + 1])
            self._closing.wait(drip.interval)
        while not self._closing.wait(drip.interval):
            connection.send(drip.filler)


def _head(status: int, headers: tuple[tuple[str, str], ...], length: int) -> bytes:
    fields = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"HTTP/1.1 {status} Scripted\r\n{fields}Content-Length: {length}\r\n\r\n".encode("latin-1")
