"""Tests of `counting`."""
