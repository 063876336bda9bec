"""Which modules are mutated, and the tests that must find it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_POLICY: Final = "event_publisher/policy"
_LEDGER: Final = "event_publisher/ledger"

#: Test files by module, both without what they have in common; the file that finds most comes first.
#: Tests that are marked as slow don't run.
TARGETS: Final[Mapping[str, tuple[str, ...]]] = {
    "events": (
        *("test_events_fast_way", "test_events_checks"),
        *("test_events", "test_events_counters", "test_events_transports"),
    ),
    "serializers": ("json_writer/test_writer_speed", "test_serializers", "json_writer/test_writer"),
    "thrift_json": ("test_thrift_json", "test_thrift_fallback"),
    "thrift_fallback": ("test_thrift_fallback_errors", "test_thrift_fallback", "test_thrift_json"),
    "json_writer/forms": ("json_writer/test_writer",),
    "json_writer/hook": ("json_writer/test_writer",),
    "json_writer/plain": (
        "json_writer/test_plain_looks",
        "json_writer/test_plain",
        "json_writer/test_writer_speed",
    ),
    "json_writer/reference": (
        "json_writer/test_reference_errors",
        "json_writer/test_reference",
        "json_writer/test_writer",
    ),
    "json_writer/shapes": (
        "json_writer/test_shapes_marks",
        "json_writer/test_shapes",
        "libraries/test_libraries",
    ),
    "json_writer/source": (
        "json_writer/test_source_lookups",
        "json_writer/test_source",
        "json_writer/test_writer",
    ),
    "json_writer/writer": (
        "json_writer/test_writer_forms",
        "json_writer/test_writer_counts",
        "json_writer/test_writer_speed",
        "json_writer/test_writer",
    ),
    "spool/format": ("spool/test_format_examples", "spool/test_format_runs", "spool/test_format"),
    "spool/writer": ("spool/test_writer",),
    "event_publisher/config/values": (
        "event_publisher/config/test_values_bounds",
        "event_publisher/config/test_values",
    ),
    "event_publisher/telemetry/statsd_lines": ("event_publisher/telemetry/test_statsd_lines",),
    "event_publisher/queue_consumer": (
        "event_publisher/test_queue_consumer",
        "event_publisher/test_queue_lock",
    ),
    f"{_LEDGER}/file": (
        f"{_LEDGER}/test_ledger_numbers",
        f"{_LEDGER}/test_ledger_files",
        f"{_LEDGER}/test_file",
    ),
    f"{_LEDGER}/ledger": (
        f"{_LEDGER}/test_ledger_numbers",
        f"{_LEDGER}/test_ledger_files",
        f"{_LEDGER}/test_ledger",
        f"{_LEDGER}/test_ledger_faults",
    ),
    f"{_LEDGER}/letters": (
        f"{_LEDGER}/test_ledger_numbers",
        f"{_LEDGER}/test_ledger_files",
        f"{_LEDGER}/test_letters",
    ),
    f"{_LEDGER}/rows": (f"{_LEDGER}/test_rows",),
    f"{_POLICY}/accounting": (f"{_POLICY}/test_accounting",),
    f"{_POLICY}/admission": (f"{_POLICY}/test_admission_bounds", f"{_POLICY}/test_admission"),
    f"{_POLICY}/backoff": (f"{_POLICY}/test_backoff",),
    f"{_POLICY}/batching": (f"{_POLICY}/test_batching",),
    f"{_POLICY}/byte_ranges": (f"{_POLICY}/test_byte_ranges",),
    f"{_POLICY}/delivery": (f"{_POLICY}/test_delivery_rules", f"{_POLICY}/test_delivery"),
    f"{_POLICY}/journal": (f"{_POLICY}/test_journal",),
    f"{_POLICY}/outcome": (f"{_POLICY}/test_outcome",),
    f"{_POLICY}/pending": (
        f"{_POLICY}/test_pending_line",
        f"{_POLICY}/test_pending",
        f"{_POLICY}/test_delivery",
    ),
    f"{_POLICY}/poison": (f"{_POLICY}/test_poison_judgements", f"{_POLICY}/test_poison"),
    f"{_POLICY}/rejection": (f"{_POLICY}/test_admission_bounds", f"{_POLICY}/test_delivery"),
    f"{_POLICY}/span": (f"{_POLICY}/test_span",),
    f"{_POLICY}/wire": (f"{_POLICY}/test_wire",),
}

#: A test file that every module has beside its own: rules that hold for all values.
COMMON: Final = "project/test_values"
