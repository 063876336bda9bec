"""What becomes of the events of a service: counted, reported to the publisher, and logged."""
