"""What the errors for Thrift structs say."""

from __future__ import annotations

import pytest

from baseplate_events.errors import EventNotSerializableError
from baseplate_events.thrift_json import write_struct


def field_of(struct: object) -> str:
    """Return the field that the error for a struct names."""
    with pytest.raises(EventNotSerializableError) as caught:
        write_struct(struct)
    return caught.value.field


def problem_of(struct: object) -> str:
    """Return the problem that the error for a struct states."""
    with pytest.raises(EventNotSerializableError) as caught:
        write_struct(struct)
    return caught.value.problem
