"""The event publisher: the sidecar that drains an event queue and posts it to the event collector.

The modules, in the order in which an event passes them:

    queue_consumer   receives events from the POSIX queue; `unlink_watch` notices by `inotify` that it was
                     removed, `queue_lock` finds a second publisher, and `missing_queue` stands for one that
                     isn't there
    relay            appends them to the spool, if there is one
    spool_reader/    reads what services and the relay appended to a spool
    event_sources    decides how much to receive and read, also during a stop; `spool_source` combines
                     reader, relay and ledger for it
    publisher        the loop that makes every decision; `control` wakes it, `clock` supplies the time
    policy/          the decisions, without any I/O: batches, poison, backoff, outcomes, ...
    sender           a thread that compresses, signs and posts a batch
    http_transport   posts a request: `http_connection` connects and sends, `http_response` reads the answer,
                     `addresses` and `certificates` are what all senders share
    ledger/          which batches were begun, what is delivered, and dead letters: events that were given up

Around these:

    __main__         the command line, with the signals; `exit_status` has its statuses, `standard_streams`
                     what happens if stdout or stderr is closed
    assembly         opens queue, spool and dead letters, and makes the policy
    access           whether others can get at the queue, or at the secret in the configuration
    config/          the INI file: values, options, settings
    telemetry/       statsd, Prometheus, health pages, systemd, the log; `connection_server` serves the health
                     pages' connections, and those of the dev collector
    stop_log         what a publisher logs while it stops
    foreign_text     makes text from elsewhere safe for a terminal or a log
"""
