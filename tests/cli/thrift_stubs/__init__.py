"""Tests of the command `thrift-stubs`."""
