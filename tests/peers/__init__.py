"""Tests beside real peers: nginx, statsd, and a collector in another language."""
