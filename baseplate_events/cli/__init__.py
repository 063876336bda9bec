"""The commands: `python -m baseplate_events COMMAND`, one module or folder each."""
