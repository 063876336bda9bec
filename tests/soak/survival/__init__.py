"""Real publishers through kills, outages and full disks, with every event counted."""
