"""The command `dead-letters`: list, show, replay and purge the events that a publisher gave up on."""
