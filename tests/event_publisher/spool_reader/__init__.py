"""Tests of `event_publisher/spool`."""
