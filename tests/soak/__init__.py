"""Long runs: a fleet of simulated publishers, and real publishers that are killed and cut off."""
