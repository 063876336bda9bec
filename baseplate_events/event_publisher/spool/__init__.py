"""The spool: events on disk from the moment they leave the queue until they are delivered."""
