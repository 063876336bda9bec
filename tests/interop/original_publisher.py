"""Runs baseplate.py's event publisher with events small enough for the limits of a stock Linux.

The first argument is the size of the largest event in bytes; all others are baseplate.py's.
"""

from __future__ import annotations

import importlib
import sys
import warnings

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    publisher = importlib.import_module("baseplate.sidecars.event_publisher")
    vars(publisher).update(MAX_EVENT_SIZE=int(sys.argv.pop(1)), MAX_BATCH_AGE=0.05)
    publisher.publish_events()
