"""Everything that the doctor can find: a code for each finding, after the verdict that it always has."""

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
    #: skipped: Only a configuration without mistakes says what to look at.
    CONFIGURATION_NEEDED = "configuration-needed"
    #: ok: Each environment variable that the configuration names is set.
    VARIABLES_SET = "variables-set"
    #: ok: The configuration names no environment variable.
    VARIABLES_UNUSED = "variables-unused"
    #: problem: The configuration names an environment variable that isn't set.
    VARIABLE_UNSET = "variable-unset"
    #: ok: The secret of the key can't be guessed.
    SECRET_LONG_ENOUGH = "secret-long-enough"  # noqa: S105 - a code
    #: warning: The secret of the key has too few bytes.
    SECRET_SHORT = "secret-short"  # noqa: S105 - likewise

    #: ok: No secret can be read in the configuration file by all users of the host.
    CONFIGURATION_FILE_CLOSED = "configuration-file-closed"
    #: warning: All users of the host can read the secret in the configuration file.
    CONFIGURATION_FILE_READABLE = "configuration-file-readable"
    #: warning: All users of the host can write to the configuration file.
    CONFIGURATION_FILE_WRITABLE = "configuration-file-writable"
    #: skipped: The configuration is no file, such as a pipe, or its folder can't be looked at.
    CONFIGURATION_FILE_UNKNOWN = "configuration-file-unknown"

    # --- limits of the host ---

    #: ok: The sysctls allow the queue that is wanted.
    SYSCTLS_SUFFICIENT = "sysctls-sufficient"
    #: warning: They don't.
    SYSCTLS_TOO_LOW = "sysctls-too-low"
    #: ok: RLIMIT_MSGQUEUE has no limit.
    RLIMIT_NONE = "rlimit-none"
    #: ok: RLIMIT_MSGQUEUE has room for the queue that is wanted, beside the user's others.
    RLIMIT_SUFFICIENT = "rlimit-sufficient"
    #: warning: It hasn't.
    RLIMIT_TOO_LOW = "rlimit-too-low"

    #: ok: No cgroup limits the memory of this process, to which the events that it puts are charged.
    MEMORY_UNLIMITED = "memory-unlimited"
    #: ok: A full queue and a small service fit into the memory limit.
    MEMORY_SUFFICIENT = "memory-sufficient"
    #: warning: They don't: a service is killed before its queue is full.
    MEMORY_TOO_SMALL = "memory-too-small"

    # --- the queue ---

    #: ok: No queue was named; a new one gets the size that is wanted.
    NEW_QUEUE_POSSIBLE = "new-queue-possible"
    #: ok: No queue was named; a new one is smaller than wanted.
    NEW_QUEUE_SMALLER = "new-queue-smaller"
    #: problem: No queue was named; the limits allow none at all.
    NEW_QUEUE_IMPOSSIBLE = "new-queue-impossible"
    #: ok: The queue doesn't exist; its first user gets the size that is wanted.
    QUEUE_MISSING = "queue-missing"
    #: ok: The queue doesn't exist; its first user gets a smaller one.
    QUEUE_MISSING_SMALLER = "queue-missing-smaller"
    #: problem: The queue doesn't exist, and the limits allow none at all.
    QUEUE_MISSING_IMPOSSIBLE = "queue-missing-impossible"
    #: warning: The queue doesn't exist, the limits allow none, and the publisher has a spool beside it.
    QUEUE_MISSING_BESIDE_SPOOL = "queue-missing-beside-spool"
    #: skipped: The publisher has a spool, and uses no POSIX queue.
    QUEUE_UNUSED = "queue-unused"
    #: problem: The queue belongs to a user who doesn't let this process in.
    QUEUE_FORBIDDEN = "queue-forbidden"
    #: problem: The queue can't be opened for another reason.
    QUEUE_UNAVAILABLE = "queue-unavailable"
    #: ok: The queue has the size that is wanted, or more.
    QUEUE_LARGE_ENOUGH = "queue-large-enough"
    #: warning: It has less.
    QUEUE_TOO_SMALL = "queue-too-small"
    #: ok: The queue has room for more events.
    QUEUE_HAS_ROOM = "queue-has-room"
    #: warning: The queue is nearly full, or full.
    QUEUE_NEARLY_FULL = "queue-nearly-full"
    #: ok: The queue belongs to this user, to root, or to a member of a group that is meant to get at it.
    QUEUE_OWNER = "queue-owner"
    #: warning: The queue belongs to another user, who can read all events.
    QUEUE_FOREIGN = "queue-foreign"
    #: ok: Only its owner or a group can take events from the queue.
    QUEUE_ACCESS_LIMITED = "queue-access-limited"
    #: warning: Every user can take events from the queue, though its configured mode doesn't allow it.
    QUEUE_OPEN_TO_ALL = "queue-open-to-all"
    #: warning: Every user can take events from the queue, as its configured mode allows.
    QUEUE_MODE_OPEN_TO_ALL = "queue-mode-open-to-all"
    #: warning: Every user can put events into the queue, and take none away.
    QUEUE_WRITABLE_BY_ALL = "queue-writable-by-all"
    #: warning: The queue's group gets at it, though its configured mode doesn't let a group in.
    QUEUE_OPEN_TO_GROUP = "queue-open-to-group"

    # --- the way to the collector, or to the proxy before it ---

    #: skipped: A step before this one failed.
    STEP_BLOCKED = "step-blocked"
    #: ok: The host's name has addresses.
    NAME_RESOLVED = "name-resolved"
    #: problem: It has none.
    NAME_UNRESOLVED = "name-unresolved"
    #: problem: No name server answered in time.
    NAME_SERVERS_SILENT = "name-servers-silent"
    #: ok: A connection was made to each address that this host has a route to.
    CONNECTION_MADE = "connection-made"
    #: warning: A connection was made to some addresses only.
    CONNECTION_PARTIAL = "connection-partial"
    #: problem: No address took a connection, and at least one refused it.
    CONNECTION_REFUSED = "connection-refused"
    #: problem: No address took a connection, and at least one didn't answer.
    CONNECTION_TIMED_OUT = "connection-timed-out"
    #: problem: No address took a connection, for other reasons such as a missing route.
    CONNECTION_FAILED = "connection-failed"
    #: skipped: The collector is posted to without TLS.
    TLS_UNUSED = "tls-unused"
    #: ok: The collector's certificate is accepted.
    CERTIFICATE_ACCEPTED = "certificate-accepted"
    #: warning: It is accepted, but ends within days.
    CERTIFICATE_ENDS_SOON = "certificate-ends-soon"
    #: problem: The certificate has ended.
    CERTIFICATE_EXPIRED = "certificate-expired"
    #: problem: By this host's clock the certificate has yet to begin.
    CERTIFICATE_NOT_YET_VALID = "certificate-not-yet-valid"
    #: problem: The certificate is for another name.
    CERTIFICATE_FOR_ANOTHER_NAME = "certificate-for-another-name"
    #: problem: The certificate, or an authority's, lacks what this Python requires, such as key identifiers.
    CERTIFICATE_NOT_STRICT = "certificate-not-strict"
    #: problem: The certificate, or an authority's, has too short a key or too weak a digest.
    CERTIFICATE_WEAK = "certificate-weak"
    #: problem: The certificate isn't one for servers.
    CERTIFICATE_FOR_ANOTHER_PURPOSE = "certificate-for-another-purpose"
    #: problem: The certificate can't be checked, since this host has no certificate of any authority.
    CERTIFICATE_AUTHORITIES_MISSING = "certificate-authorities-missing"
    #: problem: The certificate isn't accepted for another reason, mostly an unknown authority.
    CERTIFICATE_UNTRUSTED = "certificate-untrusted"
    #: problem: What answers doesn't speak TLS that this host accepts.
    HANDSHAKE_REFUSED = "handshake-refused"
    #: problem: The TLS handshake wasn't finished in time.
    HANDSHAKE_TIMED_OUT = "handshake-timed-out"
    #: problem: The proxy doesn't answer CONNECT in HTTP.
    HANDSHAKE_PROXY_NOT_HTTP = "handshake-proxy-not-http"
    #: problem: The proxy wants credentials (407 to CONNECT).
    TUNNEL_WANTS_CREDENTIALS = "tunnel-wants-credentials"
    #: problem: The proxy doesn't allow CONNECT to the collector (other 3xx and 4xx, 501).
    TUNNEL_FORBIDDEN = "tunnel-forbidden"
    #: problem: The proxy doesn't reach the collector, or fails (other statuses).
    TUNNEL_FAILED = "tunnel-failed"
    #: problem: The connection broke during the TLS handshake.
    HANDSHAKE_BROKEN = "handshake-broken"

    # --- the signed probe ---

    #: skipped: The probe was left out on request.
    PROBE_LEFT_OUT = "probe-left-out"
    #: ok: The collector took an empty batch, and not one with a false signature.
    PROBE_ACCEPTED = "probe-accepted"
    #: warning: The collector, or whatever answers, took an empty batch with a false signature too.
    PROBE_ANYTHING_ACCEPTED = "probe-anything-accepted"
    #: ok: The collector refused an empty batch for being empty, and a false signature for being false.
    PROBE_KEY_ACCEPTED = "probe-key-accepted"
    #: problem: The collector refuses an empty batch whatever its signature.
    PROBE_SIGNATURE_IGNORED = "probe-signature-ignored"
    #: problem: The port is one for TLS, and says that it got plain HTTP (400).
    PROBE_PORT_WANTS_TLS = "probe-port-wants-tls"
    #: problem: The server wants a client certificate, and the publisher sends none.
    PROBE_WANTS_CLIENT_CERTIFICATE = "probe-wants-client-certificate"
    #: skipped: The collector refused an empty batch; its answer to a false signature says nothing.
    PROBE_INCONCLUSIVE = "probe-inconclusive"
    #: problem: An empty batch is too large for the collector, or for what stands before it.
    PROBE_TOO_LARGE = "probe-too-large"
    #: problem: The collector doesn't accept the key (401).
    PROBE_KEY_REJECTED = "probe-key-rejected"
    #: problem: The collector doesn't allow the key to send (403).
    PROBE_KEY_FORBIDDEN = "probe-key-forbidden"
    #: problem: The collector doesn't know the path of the URL (404).
    PROBE_PATH_UNKNOWN = "probe-path-unknown"
    #: problem: What answers isn't an event collector (405, 501).
    PROBE_NOT_A_COLLECTOR = "probe-not-a-collector"
    #: problem: The proxy wants credentials (407).
    PROBE_PROXY_WANTS_CREDENTIALS = "probe-proxy-wants-credentials"
    #: problem: A proxy before the collector wants a Content-Length, which the request has (411).
    PROBE_LENGTH_REQUIRED = "probe-length-required"
    #: problem: The collector doesn't take this format of events (415).
    PROBE_FORMAT_UNSUPPORTED = "probe-format-unsupported"
    #: problem: Another 3xx or 4xx status, such as a redirect.
    PROBE_UNEXPECTED_STATUS = "probe-unexpected-status"
    #: problem: The publisher's HTTP client doesn't accept the certificate, though the handshake succeeded.
    PROBE_UNTRUSTED = "probe-untrusted"
    #: problem: The publisher's HTTP client doesn't find the name, though it was found before.
    PROBE_NAME_UNKNOWN = "probe-name-unknown"
    #: warning: The collector asks to come back later (408, 425, 429).
    PROBE_POSTPONED = "probe-postponed"
    #: problem: The collector, or what stands before it, fails (other 5xx, or no status of HTTP).
    PROBE_COLLECTOR_FAILS = "probe-collector-fails"
    #: problem: There was no HTTP response.
    PROBE_UNANSWERED = "probe-unanswered"

    # --- the clock ---

    #: skipped: The clock is read from the response to the probe, which was left out on request.
    CLOCK_LEFT_OUT = "clock-left-out"
    #: skipped: The clock is read from the response to the probe, and there was none.
    CLOCK_UNANSWERED = "clock-unanswered"
    #: skipped: The response has no date.
    CLOCK_WITHOUT_DATE = "clock-without-date"
    #: skipped: The response has a date that isn't one.
    CLOCK_UNREADABLE_DATE = "clock-unreadable-date"
    #: ok: This host's clock agrees with the collector's.
    CLOCK_RIGHT = "clock-right"
    #: warning: It doesn't.
    CLOCK_OFF = "clock-off"

    # --- the statsd server ---

    #: skipped: No statsd server is configured.
    STATSD_UNSET = "statsd-unset"
    #: ok: A server listens on the Unix socket.
    STATSD_SOCKET_SERVED = "statsd-socket-served"
    #: warning: There is no file of this path.
    STATSD_SOCKET_MISSING = "statsd-socket-missing"
    #: warning: No server listens on the Unix socket, or the file isn't one.
    STATSD_SOCKET_UNSERVED = "statsd-socket-unserved"
    #: warning: This user may not write to the Unix socket.
    STATSD_SOCKET_FORBIDDEN = "statsd-socket-forbidden"
    #: warning: The Unix socket is one for streams.
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

    # --- a folder of the publisher: `name` says which ---

    #: ok: The folder can be used.
    FOLDER_USABLE = "folder-usable"
    #: ok: The folder doesn't exist, and the publisher can make it.
    FOLDER_TO_COME = "folder-to-come"
    #: problem: The folder doesn't exist, and this user can't make it.
    FOLDER_UNMAKABLE = "folder-unmakable"
    #: problem: The folder doesn't exist, and the disk that it would be on is read-only.
    FOLDER_UNMAKABLE_READ_ONLY = "folder-unmakable-read-only"
    #: problem: The path leads through a link to something that doesn't exist.
    FOLDER_BEHIND_A_BROKEN_LINK = "folder-behind-a-broken-link"
    #: problem: The path can't be looked at.
    FOLDER_UNREACHABLE = "folder-unreachable"
    #: problem: The path is of something else than a folder.
    FOLDER_IS_NONE = "folder-is-none"
    #: problem: The folder is on a disk that is read-only.
    FOLDER_READ_ONLY = "folder-read-only"
    #: problem: This user may not write to the folder.
    FOLDER_NOT_WRITABLE = "folder-not-writable"

    # --- the spool ---

    #: skipped: No spool is configured.
    SPOOL_UNSET = "spool-unset"
    #: problem: There is no directory for the spool, which services and publisher share.
    SPOOL_DIRECTORY_MISSING = "spool-directory-missing"
    #: problem: What is in the place of the spool's folder isn't one.
    SPOOL_FOLDER_IS_NONE = "spool-folder-is-none"
    #: problem: This process may not use the spool's folder, by its user, group or mode.
    SPOOL_FOLDER_FORBIDDEN = "spool-folder-forbidden"
    #: ok: The spool is on a local file system.
    SPOOL_FILE_SYSTEM_LOCAL = "spool-file-system-local"
    #: problem: The spool is on a file system of a network.
    SPOOL_FILE_SYSTEM_REMOTE = "spool-file-system-remote"
    #: warning: Only a trial can say whether the spool's file system does what is needed.
    SPOOL_FILE_SYSTEM_UNPROVEN = "spool-file-system-unproven"
    #: ok: The spool is in memory, and no cgroup limits that.
    SPOOL_MEMORY_UNLIMITED = "spool-memory-unlimited"
    #: ok: The spool is in memory, and fits into the limit when it is full.
    SPOOL_MEMORY_SUFFICIENT = "spool-memory-sufficient"
    #: warning: The spool is in memory, and its writers are killed before it is full.
    SPOOL_MEMORY_TOO_SMALL = "spool-memory-too-small"
    #: problem: The spool's folder can't be read.
    SPOOL_UNREADABLE = "spool-unreadable"
    #: skipped: Whether a publisher uses the spool can't be known.
    SPOOL_LOCK_UNKNOWN = "spool-lock-unknown"
    #: ok: A publisher uses the spool.
    SPOOL_LOCKED = "spool-locked"
    #: ok: No publisher uses the spool.
    SPOOL_UNLOCKED = "spool-unlocked"
    #: ok: No event waits in the spool.
    SEGMENTS_NONE = "segments-none"
    #: ok: Events wait in the spool.
    SEGMENTS_WAITING = "segments-waiting"
    #: warning: Segments are of a later release.
    SEGMENTS_NEWER = "segments-newer"
    #: warning: Segments have events for another `collector.version`.
    SEGMENTS_OF_ANOTHER_FORMAT = "segments-of-another-format"
    #: warning: Segments can't be read.
    SEGMENTS_UNREADABLE = "segments-unreadable"
    #: ok: The disk has room for all that the spool may take.
    SPACE_SUFFICIENT = "space-sufficient"
    #: warning: The disk is full before the spool is.
    SPACE_TOO_SMALL = "space-too-small"
    #: ok: The disk has inodes for many more files.
    INODES_SUFFICIENT = "inodes-sufficient"
    #: warning: The disk has few inodes left.
    INODES_FEW = "inodes-few"

    # --- the transport ---

    #: ok: The POSIX queue and the spool both suit this host.
    TRANSPORT_EITHER = "transport-either"
    #: ok: The POSIX queue suits, and there can't be a spool or none is set.
    TRANSPORT_POSIX = "transport-posix"
    #: ok: The spool suits, is usable and not switched off; a POSIX queue is missing or smaller than wanted.
    TRANSPORT_SPOOL = "transport-spool"
    #: warning: The spool suits, but isn't set; a POSIX queue is impossible or smaller than wanted.
    TRANSPORT_SPOOL_UNSET = "transport-spool-unset"
    #: warning: The spool suits and is usable, but `queue.transport` is `posix`, and that queue is too small.
    TRANSPORT_SPOOL_UNUSED = "transport-spool-unused"
    #: problem: The spool can't be used, and a POSIX queue is impossible or smaller than wanted.
    TRANSPORT_NONE = "transport-none"

    # --- the ledger, which has the publisher's batches and dead letters ---

    #: ok: There is no ledger yet.
    LEDGER_NONE = "ledger-none"
    #: ok: The ledger can be read.
    LEDGER_READABLE = "ledger-readable"
    #: warning: The ledger is damaged, or isn't one.
    LEDGER_DAMAGED = "ledger-damaged"
    #: problem: The ledger is of a later release.
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

    # --- a publisher that runs ---

    #: skipped: No health endpoint is configured.
    PUBLISHER_ENDPOINT_UNSET = "publisher-endpoint-unset"
    #: warning: No publisher answers at the health endpoint.
    PUBLISHER_SILENT = "publisher-silent"
    #: ok: The publisher runs and isn't failing.
    PUBLISHER_DELIVERS = "publisher-delivers"
    #: warning: The publisher delivers, but something of its spool doesn't work as it should.
    PUBLISHER_HAMPERED = "publisher-hampered"
    #: problem: The publisher runs and isn't delivering.
    PUBLISHER_FAILS = "publisher-fails"
