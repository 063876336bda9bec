"""The events that the publisher gave up, on disk."""
