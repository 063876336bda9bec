"""The codes of all findings; the comment of each begins with its verdict."""

from __future__ import annotations

import enum


class Code(enum.Enum):
    """What was found."""

    # --- this process ---

    #: ok: Which Python runs the doctor, and as which user.
    PROCESS_IDENTIFIED = "process-identified"
    #: ok: posix_ipc can be used.
    POSIX_IPC_PRESENT = "posix-ipc-present"
    #: ok: posix_ipc can't be imported, and no POSIX queue is used.
    POSIX_IPC_UNNEEDED = "posix-ipc-unneeded"
    #: problem: posix_ipc can't be imported, or the system has no POSIX queues.
    POSIX_IPC_UNUSABLE = "posix-ipc-unusable"
    #: ok: thrift can be imported.
    THRIFT_PRESENT = "thrift-present"
    #: warning: thrift can't be imported.
    THRIFT_MISSING = "thrift-missing"

    # --- configuration and key ---

    #: ok: The configuration has no mistakes.
    CONFIGURATION_GOOD = "configuration-good"
    #: problem: One mistake in the configuration.
    CONFIGURATION_MISTAKE = "configuration-mistake"
    #: skipped: Only a valid configuration says what to check.
    CONFIGURATION_NEEDED = "configuration-needed"
    #: problem: The configuration names an environment variable that isn't set.
    VARIABLE_UNSET = "variable-unset"
    #: ok: The secret of the key is long enough.
    SECRET_LONG_ENOUGH = "secret-long-enough"  # noqa: S105 - a code
    #: warning: The secret of the key has too few bytes.
    SECRET_SHORT = "secret-short"  # noqa: S105 - likewise

    #: ok: The configuration file shows no secret to all users of the host.
    CONFIGURATION_FILE_CLOSED = "configuration-file-closed"
    #: warning: All users of the host can read the secret in the configuration file.
    CONFIGURATION_FILE_READABLE = "configuration-file-readable"
    #: warning: All users of the host can write to the configuration file.
    CONFIGURATION_FILE_WRITABLE = "configuration-file-writable"
    #: skipped: The configuration isn't a file (but a pipe, say), or its folder can't be read.
    CONFIGURATION_FILE_UNKNOWN = "configuration-file-unknown"

    # --- limits of the host ---

    #: ok: The sysctls allow the wanted queue.
    SYSCTLS_SUFFICIENT = "sysctls-sufficient"
    #: warning: They don't.
    SYSCTLS_TOO_LOW = "sysctls-too-low"
    #: ok: RLIMIT_MSGQUEUE has no limit.
    RLIMIT_NONE = "rlimit-none"
    #: ok: RLIMIT_MSGQUEUE has room for the wanted queue besides the user's others.
    RLIMIT_SUFFICIENT = "rlimit-sufficient"
    #: warning: It doesn't.
    RLIMIT_TOO_LOW = "rlimit-too-low"

    #: ok: No cgroup limits the memory of this process, which is charged for the events it puts.
    MEMORY_UNLIMITED = "memory-unlimited"
    #: ok: A full queue and a small service fit into the memory limit.
    MEMORY_SUFFICIENT = "memory-sufficient"
    #: warning: They don't: a service is killed before its queue is full.
    MEMORY_TOO_SMALL = "memory-too-small"

    # --- the queue ---

    #: ok: No queue was named; a new one gets the wanted size.
    NEW_QUEUE_POSSIBLE = "new-queue-possible"
    #: ok: No queue was named; a new one is smaller than wanted.
    NEW_QUEUE_SMALLER = "new-queue-smaller"
    #: problem: No queue was named; the limits allow none.
    NEW_QUEUE_IMPOSSIBLE = "new-queue-impossible"
    #: ok: The queue doesn't exist; its first user gets the wanted size.
    QUEUE_MISSING = "queue-missing"
    #: ok: The queue doesn't exist; its first user gets a smaller one.
    QUEUE_MISSING_SMALLER = "queue-missing-smaller"
    #: problem: The queue doesn't exist, and the limits allow none.
    QUEUE_MISSING_IMPOSSIBLE = "queue-missing-impossible"
    #: warning: The queue doesn't exist, the limits allow none, and the publisher has a spool as well.
    QUEUE_MISSING_BESIDE_SPOOL = "queue-missing-beside-spool"
    #: skipped: The publisher has a spool, and uses no POSIX queue.
    QUEUE_UNUSED = "queue-unused"
    #: problem: The queue belongs to another user, and this process may not use it.
    QUEUE_FORBIDDEN = "queue-forbidden"
    #: problem: The queue can't be opened for another reason.
    QUEUE_UNAVAILABLE = "queue-unavailable"
    #: ok: The queue has at least the wanted size.
    QUEUE_LARGE_ENOUGH = "queue-large-enough"
    #: warning: It is smaller.
    QUEUE_TOO_SMALL = "queue-too-small"
    #: ok: The queue has room for more events.
    QUEUE_HAS_ROOM = "queue-has-room"
    #: warning: The queue is nearly full, or full.
    QUEUE_NEARLY_FULL = "queue-nearly-full"
    #: ok: The queue belongs to this user, to root, or its group is meant to use it.
    QUEUE_OWNER = "queue-owner"
    #: warning: The queue belongs to another user, who can read all events.
    QUEUE_FOREIGN = "queue-foreign"
    #: ok: Only its owner or a group can read events from the queue.
    QUEUE_ACCESS_LIMITED = "queue-access-limited"
    #: warning: Every user can read events from the queue.
    QUEUE_OPEN_TO_ALL = "queue-open-to-all"
    #: warning: Every user can put events on the queue, but not read any.
    QUEUE_WRITABLE_BY_ALL = "queue-writable-by-all"
    #: warning: The queue's group can use it, though its configured mode excludes the group.
    QUEUE_OPEN_TO_GROUP = "queue-open-to-group"

    # --- the connection to the collector, or to the proxy in front of it ---

    #: skipped: A step before this one failed.
    STEP_BLOCKED = "step-blocked"
    #: ok: The host's name has addresses.
    NAME_RESOLVED = "name-resolved"
    #: problem: It has none.
    NAME_UNRESOLVED = "name-unresolved"
    #: problem: No name server answered in time.
    NAME_SERVERS_SILENT = "name-servers-silent"
    #: ok: Each address that this host has a route to accepted a connection.
    CONNECTION_MADE = "connection-made"
    #: warning: Only some addresses accepted a connection.
    CONNECTION_PARTIAL = "connection-partial"
    #: problem: No address accepted a connection, and at least one refused it.
    CONNECTION_REFUSED = "connection-refused"
    #: problem: No address accepted a connection, and at least one didn't answer.
    CONNECTION_TIMED_OUT = "connection-timed-out"
    #: problem: No address accepted a connection, for other reasons such as a missing route.
    CONNECTION_FAILED = "connection-failed"
    #: skipped: The collector is posted to without TLS.
    TLS_UNUSED = "tls-unused"
    #: ok: The collector's certificate is accepted.
    CERTIFICATE_ACCEPTED = "certificate-accepted"
    #: warning: It is accepted, but expires within days.
    CERTIFICATE_ENDS_SOON = "certificate-ends-soon"
    #: problem: The certificate has expired.
    CERTIFICATE_EXPIRED = "certificate-expired"
    #: problem: By this host's clock the certificate isn't valid yet.
    CERTIFICATE_NOT_YET_VALID = "certificate-not-yet-valid"
    #: problem: The certificate is for another name.
    CERTIFICATE_FOR_ANOTHER_NAME = "certificate-for-another-name"
    #: problem: The certificate, or an authority's, lacks what this Python requires, such as key identifiers.
    CERTIFICATE_NOT_STRICT = "certificate-not-strict"
    #: problem: The certificate, or an authority's, has a key that is too short or a digest that is too weak.
    CERTIFICATE_WEAK = "certificate-weak"
    #: problem: The certificate isn't one for servers.
    CERTIFICATE_FOR_ANOTHER_PURPOSE = "certificate-for-another-purpose"
    #: problem: The certificate can't be checked, since this host has no authority's certificate.
    CERTIFICATE_AUTHORITIES_MISSING = "certificate-authorities-missing"
    #: problem: The certificate isn't accepted for another reason, usually an unknown authority.
    CERTIFICATE_UNTRUSTED = "certificate-untrusted"
    #: problem: The peer speaks no TLS that this host accepts.
    HANDSHAKE_REFUSED = "handshake-refused"
    #: problem: The TLS handshake wasn't finished in time.
    HANDSHAKE_TIMED_OUT = "handshake-timed-out"
    #: problem: The proxy doesn't answer CONNECT in HTTP.
    HANDSHAKE_PROXY_NOT_HTTP = "handshake-proxy-not-http"
    #: problem: The proxy wants credentials (407 to CONNECT).
    TUNNEL_WANTS_CREDENTIALS = "tunnel-wants-credentials"
    #: problem: The proxy refuses CONNECT to the collector (other 3xx and 4xx, 501).
    TUNNEL_FORBIDDEN = "tunnel-forbidden"
    #: problem: The proxy doesn't reach the collector, or fails (other statuses).
    TUNNEL_FAILED = "tunnel-failed"
    #: problem: The connection broke during the TLS handshake.
    HANDSHAKE_BROKEN = "handshake-broken"

    # --- the signed probe ---

    #: skipped: The probe was skipped on request.
    PROBE_LEFT_OUT = "probe-left-out"
    #: ok: The collector accepted an empty batch, and refused one with a false signature.
    PROBE_ACCEPTED = "probe-accepted"
    #: warning: The peer accepted an empty batch even with a false signature.
    PROBE_ANYTHING_ACCEPTED = "probe-anything-accepted"
    #: ok: The collector refused an empty batch for being empty, and a false signature for being false.
    PROBE_KEY_ACCEPTED = "probe-key-accepted"
    #: problem: The collector refuses an empty batch whatever its signature.
    PROBE_SIGNATURE_IGNORED = "probe-signature-ignored"
    #: problem: The port is one for TLS, and says that it got plain HTTP (400).
    PROBE_PORT_WANTS_TLS = "probe-port-wants-tls"
    #: problem: The server wants a client certificate, and the publisher sends none.
    PROBE_WANTS_CLIENT_CERTIFICATE = "probe-wants-client-certificate"
    #: skipped: The collector refused an empty batch; its answer to a false signature is inconclusive.
    PROBE_INCONCLUSIVE = "probe-inconclusive"
    #: problem: An empty batch is too large for the collector, or for a proxy in front of it.
    PROBE_TOO_LARGE = "probe-too-large"
    #: problem: The collector doesn't accept the key (401).
    PROBE_KEY_REJECTED = "probe-key-rejected"
    #: problem: The collector doesn't allow the key to send (403).
    PROBE_KEY_FORBIDDEN = "probe-key-forbidden"
    #: problem: The collector doesn't know the path of the URL (404).
    PROBE_PATH_UNKNOWN = "probe-path-unknown"
    #: problem: The peer isn't an event collector (405, 501).
    PROBE_NOT_A_COLLECTOR = "probe-not-a-collector"
    #: problem: The proxy wants credentials (407).
    PROBE_PROXY_WANTS_CREDENTIALS = "probe-proxy-wants-credentials"
    #: problem: A proxy in front of the collector wants a Content-Length, which the request has (411).
    PROBE_LENGTH_REQUIRED = "probe-length-required"
    #: problem: The collector doesn't accept this event format (415).
    PROBE_FORMAT_UNSUPPORTED = "probe-format-unsupported"
    #: problem: Another 3xx or 4xx status, such as a redirect.
    PROBE_UNEXPECTED_STATUS = "probe-unexpected-status"
    #: problem: The publisher's HTTP client doesn't accept the certificate, though the handshake succeeded.
    PROBE_UNTRUSTED = "probe-untrusted"
    #: problem: The publisher's HTTP client doesn't find the name, though it was found before.
    PROBE_NAME_UNKNOWN = "probe-name-unknown"
    #: warning: The collector asks to come back later (408, 425, 429).
    PROBE_POSTPONED = "probe-postponed"
    #: problem: The collector, or a proxy in front of it, fails (other 5xx, or no status of HTTP).
    PROBE_COLLECTOR_FAILS = "probe-collector-fails"
    #: problem: There was no HTTP response.
    PROBE_UNANSWERED = "probe-unanswered"

    # --- the clock ---

    #: skipped: The clock is read from the response to the probe, which was skipped on request.
    CLOCK_LEFT_OUT = "clock-left-out"
    #: skipped: The clock is read from the response to the probe, and there was none.
    CLOCK_UNANSWERED = "clock-unanswered"
    #: skipped: The response has no date that can be parsed.
    CLOCK_WITHOUT_DATE = "clock-without-date"
    #: ok: This host's clock agrees with the collector's.
    CLOCK_RIGHT = "clock-right"
    #: warning: They disagree.
    CLOCK_OFF = "clock-off"

    # --- the statsd server ---

    #: skipped: No statsd server is configured.
    STATSD_UNSET = "statsd-unset"
    #: ok: A server listens on the Unix socket.
    STATSD_SOCKET_SERVED = "statsd-socket-served"
    #: warning: The path doesn't exist.
    STATSD_SOCKET_MISSING = "statsd-socket-missing"
    #: warning: No server listens on the Unix socket, or the file isn't one.
    STATSD_SOCKET_UNSERVED = "statsd-socket-unserved"
    #: warning: This user may not write to the Unix socket.
    STATSD_SOCKET_FORBIDDEN = "statsd-socket-forbidden"
    #: warning: The Unix socket is a stream socket.
    STATSD_SOCKET_IS_A_STREAM = "statsd-socket-is-a-stream"
    #: warning: The path can't be connected to for another reason.
    STATSD_SOCKET_UNUSABLE = "statsd-socket-unusable"
    #: ok: The host doesn't refuse datagrams.
    STATSD_PORT_OPEN = "statsd-port-open"
    #: warning: The host's name has no address, or no name server answered in time.
    STATSD_NAME_UNRESOLVED = "statsd-name-unresolved"
    #: warning: The host refuses datagrams.
    STATSD_PORT_REFUSED = "statsd-port-refused"
    #: warning: Datagrams can't be sent to the host.
    STATSD_UNREACHABLE = "statsd-unreachable"

    # --- the publisher's folders; `name` says which ---

    #: ok: The folder can be used.
    FOLDER_USABLE = "folder-usable"
    #: ok: The folder doesn't exist, and the publisher can create it.
    FOLDER_TO_COME = "folder-to-come"
    #: problem: The folder doesn't exist, and this user can't create it.
    FOLDER_UNMAKABLE = "folder-unmakable"
    #: problem: The folder doesn't exist, and its disk is read-only.
    FOLDER_UNMAKABLE_READ_ONLY = "folder-unmakable-read-only"
    #: problem: The path contains a broken link.
    FOLDER_BEHIND_A_BROKEN_LINK = "folder-behind-a-broken-link"
    #: problem: The path can't be inspected.
    FOLDER_UNREACHABLE = "folder-unreachable"
    #: problem: The path isn't a folder.
    FOLDER_IS_NONE = "folder-is-none"
    #: problem: The folder is on a read-only disk.
    FOLDER_READ_ONLY = "folder-read-only"
    #: problem: This user may not write to the folder.
    FOLDER_NOT_WRITABLE = "folder-not-writable"

    # --- the spool ---

    #: skipped: No spool is configured.
    SPOOL_UNSET = "spool-unset"
    #: problem: The directory for the spool doesn't exist.
    SPOOL_DIRECTORY_MISSING = "spool-directory-missing"
    #: problem: The path of the spool's folder isn't a folder.
    SPOOL_FOLDER_IS_NONE = "spool-folder-is-none"
    #: problem: This process may not use the spool's folder, because of its owner, group or mode.
    SPOOL_FOLDER_FORBIDDEN = "spool-folder-forbidden"
    #: ok: The spool is on a local file system.
    SPOOL_FILE_SYSTEM_LOCAL = "spool-file-system-local"
    #: problem: The spool is on a network file system.
    SPOOL_FILE_SYSTEM_REMOTE = "spool-file-system-remote"
    #: warning: Only a test can say whether the spool's file system does what is needed.
    SPOOL_FILE_SYSTEM_UNPROVEN = "spool-file-system-unproven"
    #: ok: The spool is in memory, and no cgroup limits it.
    SPOOL_MEMORY_UNLIMITED = "spool-memory-unlimited"
    #: ok: The spool is in memory, and fits into the memory limit when full.
    SPOOL_MEMORY_SUFFICIENT = "spool-memory-sufficient"
    #: warning: The spool is in memory, and its writers will be killed before it is full.
    SPOOL_MEMORY_TOO_SMALL = "spool-memory-too-small"
    #: problem: The spool's folder can't be read.
    SPOOL_UNREADABLE = "spool-unreadable"
    #: skipped: Whether a publisher uses the spool is unknown.
    SPOOL_LOCK_UNKNOWN = "spool-lock-unknown"
    #: ok: A publisher uses the spool.
    SPOOL_LOCKED = "spool-locked"
    #: ok: No publisher uses the spool.
    SPOOL_UNLOCKED = "spool-unlocked"
    #: ok: No event waits in the spool.
    SEGMENTS_NONE = "segments-none"
    #: ok: Events wait in the spool.
    SEGMENTS_WAITING = "segments-waiting"
    #: warning: Segments were written by a later release.
    SEGMENTS_NEWER = "segments-newer"
    #: warning: Segments have events for another `collector.version`.
    SEGMENTS_OF_ANOTHER_FORMAT = "segments-of-another-format"
    #: warning: Segments can't be read.
    SEGMENTS_UNREADABLE = "segments-unreadable"
    #: ok: The disk has room for a full spool.
    SPACE_SUFFICIENT = "space-sufficient"
    #: warning: The disk will be full before the spool is.
    SPACE_TOO_SMALL = "space-too-small"
    #: ok: The disk has enough inodes.
    INODES_SUFFICIENT = "inodes-sufficient"
    #: warning: The disk has few inodes left.
    INODES_FEW = "inodes-few"

    # --- the transport ---

    #: ok: The POSIX queue and the spool both suit this host.
    TRANSPORT_EITHER = "transport-either"
    #: ok: The POSIX queue suits, and a spool is impossible or not configured.
    TRANSPORT_POSIX = "transport-posix"
    #: ok: The spool suits and is in use; a POSIX queue is impossible or smaller than wanted.
    TRANSPORT_SPOOL = "transport-spool"
    #: warning: The spool suits, but isn't configured; a POSIX queue is impossible or smaller than wanted.
    TRANSPORT_SPOOL_UNSET = "transport-spool-unset"
    #: warning: The spool suits and is usable, but `queue.transport` is `posix`, and the queue is too small.
    TRANSPORT_SPOOL_UNUSED = "transport-spool-unused"
    #: problem: The spool can't be used, and a POSIX queue is impossible or smaller than wanted.
    TRANSPORT_NONE = "transport-none"

    # --- the ledger, which holds the publisher's batches and dead letters ---

    #: ok: There is no ledger yet.
    LEDGER_NONE = "ledger-none"
    #: ok: The ledger can be read.
    LEDGER_READABLE = "ledger-readable"
    #: warning: The ledger is damaged, or the file isn't a ledger.
    LEDGER_DAMAGED = "ledger-damaged"
    #: problem: The ledger was written by a later release.
    LEDGER_NEWER = "ledger-newer"
    #: problem: The ledger can't be read for another reason.
    LEDGER_UNREADABLE = "ledger-unreadable"

    # --- dead letters ---

    #: skipped: No folder for dead letters is configured.
    DEAD_LETTERS_UNSET = "dead-letters-unset"
    #: ok: There are no dead letters.
    DEAD_LETTERS_NONE = "dead-letters-none"
    #: warning: There are dead letters.
    DEAD_LETTERS_KEPT = "dead-letters-kept"

    # --- the running publisher ---

    #: skipped: No health endpoint is configured.
    PUBLISHER_ENDPOINT_UNSET = "publisher-endpoint-unset"
    #: warning: No publisher answers at the health endpoint.
    PUBLISHER_SILENT = "publisher-silent"
    #: ok: The publisher runs and isn't failing.
    PUBLISHER_DELIVERS = "publisher-delivers"
    #: warning: The publisher delivers, but its spool has a problem.
    PUBLISHER_HAMPERED = "publisher-hampered"
    #: problem: The publisher runs and isn't delivering.
    PUBLISHER_FAILS = "publisher-fails"
