"""Tests of `cli/queue`."""
