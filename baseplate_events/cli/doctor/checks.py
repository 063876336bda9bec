"""What the doctor says, and how it judges what was found. Pure.

Rules:

1. A verdict of `problem` means that events don't flow, or that the publisher won't start; `warning`, that
   they flow but something is worse than it should be or soon will be; `skipped`, that it can't be known or
   doesn't apply.
2. Whatever isn't ok says in `remedy` exactly what to do; a check that was skipped says in `found` why.
3. Nothing here holds a secret or the content of an event.
"""

from __future__ import annotations

import email.utils
import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ..._compat import assert_never
from ...event_publisher.policy.outcome import Accepted, Misconfigured, Refused, Retryable, TooLarge
from ...transport.limits import Negotiation, QueueSize, Refusal
from ..common import command, counted, short_queue_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ...event_publisher.policy.outcome import Outcome
    from ...transport.limits import HostLimits
    from ..queue.info import QueueInfo

#: Bytes below which a secret can be guessed; 16 are 128 bits.
SHORTEST_SECRET: Final = 16

#: Days before the end of a certificate from which on that is a warning, as monitors usually have it.
CERTIFICATE_NOTICE: Final = 14

#: Seconds that this host's clock may differ from the collector's.
LARGEST_SKEW: Final = 60.0

#: Share of a queue's capacity in use from which on that is a warning.
_NEARLY_FULL: Final = 0.9

_DAY: Final = 86_400.0

#: Where the files for operators have the sysctls of event queues.
_SYSCTL_FILE: Final = "/etc/sysctl.d/60-event-queues.conf"

_RLIMIT_REMEDY: Final = (
    "for services and publisher alike: `ulimit -q {0}` as root in the bash that starts them, "
    "`LimitMSGQUEUE={0}` with systemd, `--ulimit msgqueue={0}` with docker"
)


class Verdict(enum.Enum):
    """What a check comes to."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Check:
    """A thing that was looked at.

    Attributes:
        name: What was looked at.
        verdict: What it comes to.
        found: What was found.
        remedy: What to do; empty where nothing is to be done.
    """

    name: str
    verdict: Verdict
    found: str
    remedy: str = ""


def ok(name: str, found: str) -> Check:
    """Say that a thing is as it should be."""
    return Check(name, Verdict.OK, found)


def warning(name: str, found: str, remedy: str) -> Check:
    """Say that a thing should be better."""
    return Check(name, Verdict.WARNING, found, remedy)


def problem(name: str, found: str, remedy: str) -> Check:
    """Say that a thing keeps events from flowing."""
    return Check(name, Verdict.PROBLEM, found, remedy)


def skipped(name: str, why: str) -> Check:
    """Say why a thing wasn't looked at."""
    return Check(name, Verdict.SKIPPED, why)


def overall(checks: Iterable[Check]) -> Verdict:
    """Give the worst verdict; what was skipped counts as ok."""
    verdicts = {check.verdict for check in checks}
    if Verdict.PROBLEM in verdicts:
        return Verdict.PROBLEM
    return Verdict.WARNING if Verdict.WARNING in verdicts else Verdict.OK


def expected_size(asked: QueueSize, limits: HostLimits, taken: int = 0) -> QueueSize | None:
    """Tell which size an ordinary user gets who asks for one; None for none at all.

    Args:
        asked: The size.
        limits: What holds for the user's process.
        taken: Bytes that other queues of the user are charged.
    """
    negotiation = Negotiation(asked, limits)
    size: QueueSize | None = asked
    while size is not None and (refusal := _refusal(size, limits, taken)) is not None:
        size = negotiation.refused(refusal)
    return size


def _refusal(size: QueueSize, limits: HostLimits, taken: int) -> Refusal | None:
    if limits.clamp(size) != size:
        return Refusal.BOUNDS
    if limits.rlimit is not None and taken + size.bytes_charged > limits.rlimit:
        return Refusal.BYTES
    return None


def judge_sysctls(wanted: QueueSize, limits: HostLimits) -> Check:
    """Judge whether an ordinary user may make a queue of the size that is wanted."""
    name = "kernel limits"
    pairs = (
        ("fs.mqueue.msg_max", limits.msg_max, wanted.max_messages),
        ("fs.mqueue.msgsize_max", limits.msgsize_max, wanted.max_message_size),
    )
    found = ", ".join(f"{sysctl} is {allowed:,} ({needed:,} needed)" for sysctl, allowed, needed in pairs)
    short = [f"{sysctl}={needed}" for sysctl, allowed, needed in pairs if allowed < needed]
    if not short:
        return ok(name, found)
    settings = " ".join(short)
    docker = " ".join(f"--sysctl {setting}" for setting in short)
    return warning(
        name,
        found,
        f"`sysctl -w {settings}`, and for the next boot `printf '%s\\n' {settings} >> {_SYSCTL_FILE}`; with "
        f"docker `{docker}`",
    )


def judge_rlimit(wanted: QueueSize, limits: HostLimits, neighbours: Mapping[str, int]) -> Check:
    """Judge whether this user's queues may take the bytes that one of the size wanted is charged.

    Args:
        wanted: The size.
        limits: What holds for this process.
        neighbours: Bytes that other queues of this user are charged, by POSIX name.
    """
    name = "RLIMIT_MSGQUEUE"
    charge, taken = wanted.bytes_charged, sum(neighbours.values())
    if limits.rlimit is None:
        return ok(name, f"no limit ({charge:,} bytes needed)")
    found = f"{limits.rlimit:,} bytes for all queues of a user ({charge:,} needed)"
    if neighbours:
        found += f"; other queues of this user take {taken:,} of them: {', '.join(neighbours)}"
    if taken + charge <= limits.rlimit:
        return ok(name, found)
    return warning(
        name,
        found,
        # Others may not be seen, as those of containers; all of them take no more than the limit of now.
        _RLIMIT_REMEDY.format(charge + limits.rlimit if neighbours else charge),
    )


def judge_absence(queue: str | None, wanted: QueueSize, limits: HostLimits, taken: int) -> Check:
    """Tell what becomes of a queue that isn't there yet.

    Args:
        queue: Its POSIX name, or None where no queue in particular is meant.
        wanted: The size that it should have.
        limits: What holds for this process.
        taken: Bytes that other queues of this user are charged.
    """
    name = "queue"
    size = expected_size(wanted, limits, taken)
    who = (
        "an ordinary user"
        if queue is None
        else f"{queue} isn't there; whoever makes it, as an ordinary user,"
    )
    if size is None:
        return problem(name, f"{who} gets none at all", "lift the limits above")
    instead = "" if size == wanted else f", instead of {wanted}"
    return ok(name, f"{who} gets room for {size}{instead}")


def judge_queue_size(info: QueueInfo, wanted: QueueSize) -> Check:
    """Judge the size of a queue that is there."""
    name = "queue size"
    if info.size.covers(wanted):
        return ok(name, f"{info.name} has room for {info.size} ({wanted} wanted)")
    return warning(
        name,
        f"{info.name} has room for {info.size}, instead of {wanted}; a queue keeps the size that it was "
        "made with",
        "lift the limits above if they are too low, then remove it at a moment when it is empty: "
        f"{command('queue', 'unlink', short_queue_name(info.name))}. Whoever comes next makes it anew",
    )


def judge_queue_depth(info: QueueInfo) -> Check:
    """Judge how full a queue is."""
    name = "queue depth"
    found = f"{info.depth:,} of {info.size.max_messages:,} events"
    # A queue of a few events is full now and then.
    if info.depth < max(2, info.size.max_messages * _NEARLY_FULL):
        return ok(name, found)
    return warning(
        name,
        f"{found}: nearly full, so services get EventQueueFullError",
        "see that a publisher of this queue runs and gets through to the collector; its log tells",
    )


def judge_queue_access(info: QueueInfo, mode: int) -> Check:
    """Judge who gets at a queue.

    Args:
        info: The queue.
        mode: The permission bits that it should have.
    """
    name = "queue access"
    found = f"mode {info.mode:04o}: {info.takers} may take events away"
    if info.open_to_all and not mode & 0o004:
        return warning(name, found, info.chmod_command(mode))
    if info.open_to_all:
        return warning(
            name,
            found,
            "set queue.mode to 0600, or to 0660 with a common group, and "
            f"{info.chmod_command(mode & ~0o007)}",
        )
    return ok(name, found)


def judge_secret(size: int) -> Check:
    """Judge the key's secret by its bytes alone."""
    name = "key"
    if size >= SHORTEST_SECRET:
        return ok(name, f"key.secret decodes to {size} bytes")
    return warning(
        name,
        f"key.secret decodes to only {size} bytes; it can be guessed, or a part of it is missing",
        "see that all of it is there, or have a new one made with `openssl rand -base64 32`",
    )


def judge_certificate(name: str, ends_at: float, now: float, found: str) -> Check:
    """Judge the time that a certificate is still good for.

    Args:
        name: Name of the check.
        ends_at: When it ends, in seconds since 1970.
        now: The same for now.
        found: What was found besides.
    """
    days = int((ends_at - now) // _DAY)
    text = f"{found}; the certificate ends in {counted(days, 'day')}"
    if days >= CERTIFICATE_NOTICE:
        return ok(name, text)
    return warning(
        name, text, "have the collector's certificate renewed before then; delivery stops otherwise"
    )


def judge_clock(date: str | None, now: float) -> Check:
    """Judge this host's clock.

    Args:
        date: The Date header of a response, or None.
        now: Seconds since 1970 by the clock of this host, when the response came.
    """
    name = "clock"
    if date is None:
        return skipped(name, "the collector's response has no date")
    try:
        skew = now - email.utils.parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError, OverflowError):
        return skipped(name, "the collector's response has a date that can't be read")
    if abs(skew) <= LARGEST_SKEW:
        return ok(name, f"within {LARGEST_SKEW:.0f} seconds of the collector's")
    direction = "ahead of" if skew > 0 else "behind"
    return warning(
        name,
        f"{abs(skew):,.0f} seconds {direction} the collector's",
        "set this host's clock and keep it set: `timedatectl set-ntp true`; a collector may refuse what was "
        "signed at another time",
    )


def judge_outcome(  # noqa: RET503 - the last case never returns
    outcome: Outcome, key_name: str, forged: Outcome | None = None
) -> Check:
    """Judge what the collector made of an empty batch.

    Args:
        outcome: What became of the attempt.
        key_name: The key that it was signed with.
        forged: What became of another with a false signature, where the first one was `Refused`.
    """
    name = "signed probe"
    match outcome:
        case Accepted(status=status):
            return ok(name, f"the collector takes an empty batch signed with key {key_name} ({status})")
        case Refused(reason=reason):
            return _judge_refusal(reason, key_name, forged)
        case TooLarge(reason=reason):
            return problem(
                name,
                f"an empty batch is too large for the collector, or for what stands before it ({reason})",
                "check the largest body that a proxy before the collector allows, such as nginx' "
                "client_max_body_size; batch.max_size has to fit into it",
            )
        case Misconfigured(reason=reason, remedy=remedy):
            return problem(name, reason, f"{remedy}; the publisher holds all events until then")
        case Retryable(reason=reason, status=408 | 425 | 429):
            return warning(
                name, f"the collector asks to come back later ({reason})", "see to the load of the collector"
            )
        case Retryable(reason=reason, from_collector=from_collector):
            advice = (
                "if it falls over empty batches alone, leave the probe out with --no-probe"
                if from_collector
                else "and check the port in collector.hostname, and collector.scheme"
            )
            return problem(
                name, reason, f"see the log of the collector, or of what stands before it; {advice}"
            )
        case _:
            assert_never(outcome)


def _judge_refusal(reason: str, key_name: str, forged: Outcome | None) -> Check:
    """Judge a refusal of an empty batch for what is in it, as the protocol has it: nothing.

    A collector checks the signature first, so by its answer to a false one is seen whether it does.
    """
    name = "signed probe"
    match forged:
        case Misconfigured(reason=other_reason, from_collector=True):
            return ok(
                name,
                f"the collector accepts key {key_name}: it refuses an empty batch for what is in it "
                f"({reason}), and one with a false signature for that ({other_reason})",
            )
        case Refused():
            return warning(
                name,
                f"an empty batch is refused for what is in it ({reason}), whatever its signature: whether "
                f"key {key_name} is accepted isn't known, nor whether an event collector answers",
                "check collector.scheme, and the port in collector.hostname; events that are refused like "
                "that become dead letters",
            )
        case _:
            return skipped(
                name,
                f"the collector refuses an empty batch for what is in it ({reason}); whether it accepts key "
                f"{key_name} isn't known",
            )


def judge_space(name: str, key: str, *, free: int, used: int, max_size: int) -> Check:
    """Judge the room on a disk.

    Args:
        name: Name of the check.
        key: The key that bounds what is written.
        free: Bytes that this user may still write.
        used: Bytes that were written already.
        max_size: Bytes that the publisher may take in all.
    """
    found = f"{free:,} bytes free, {used:,} of {max_size:,} ({key}) in use"
    if free >= max_size - used:
        return ok(name, found)
    return warning(
        name,
        f"{found}: the disk is full before {key} is reached",
        f"make room on that disk, or set {key} to {max(free + used, 0) // 2} or less",
    )
