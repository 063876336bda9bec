"""What the publisher reports: statsd, Prometheus, health pages, systemd and its log."""
