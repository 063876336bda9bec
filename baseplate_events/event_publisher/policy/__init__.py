"""What the publisher decides. Pure: no I/O, no clock, no threads, no logging."""
