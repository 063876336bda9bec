"""The event publisher: the sidecar that drains an event queue and posts it to the event collector."""
