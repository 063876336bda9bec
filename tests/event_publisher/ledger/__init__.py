"""Tests of `event_publisher/ledger`."""
