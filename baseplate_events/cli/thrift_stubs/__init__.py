"""The command `thrift-stubs`."""
