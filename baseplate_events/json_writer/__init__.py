"""Events to JSON: mappings, dataclasses and what else is one object."""
