"""Tests of `event_publisher/dead_letters`."""
