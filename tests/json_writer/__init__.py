"""Tests of `json_writer`."""
