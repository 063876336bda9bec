"""A thousand simulated publishers through an outage."""
