"""Tests of `event_publisher/config`."""
