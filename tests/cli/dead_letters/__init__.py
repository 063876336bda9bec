"""Tests of `cli/dead_letters`."""
