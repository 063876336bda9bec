"""What the publisher reports: statsd, Prometheus, health pages, systemd and its log.

Nothing here can disturb delivery.

    snapshot        what the publisher is doing, as a value that other threads read; `rates` how fast
    reporter        makes a snapshot when a report is due, and hands it to the others; has the names of statsd
    metrics         what a snapshot says in metrics, under the names of Prometheus
    statsd          sends metrics to a statsd server; `statsd_lines` has the format
    prometheus      writes and reads the text format
    health_server   serves `health_pages`; `host_check` refuses what a web page could ask
    systemd         notifies systemd that the publisher is ready, stops, or is stuck
    logs            one line for each message, and no flood; `log_writer` writes them, and no one waits for it
"""
