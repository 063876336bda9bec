"""Tests of `event_publisher/policy`."""
