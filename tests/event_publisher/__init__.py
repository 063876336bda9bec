"""Tests of `event_publisher`."""
