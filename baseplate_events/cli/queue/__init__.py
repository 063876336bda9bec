"""The command `queue`: inspect, read, write, create and unlink the queues of this host."""
