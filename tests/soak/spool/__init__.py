"""Services that are killed while they put events into a spool, with every event counted."""
