"""Tests of `dev_collector`."""
