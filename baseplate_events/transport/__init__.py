"""How serialized events get from a service to its publisher: a POSIX message queue."""
