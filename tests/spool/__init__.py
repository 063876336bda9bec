"""Tests of `spool`."""
