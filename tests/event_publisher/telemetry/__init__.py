"""Tests of `event_publisher/telemetry`."""
