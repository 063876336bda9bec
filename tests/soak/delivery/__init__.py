"""Real publishers and services on one spool: killed, damaged, stopped; with every event counted."""
