"""Judges the limits of the host, the queue, the key and the disk by what was found. Pure."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, Final

from ..._words import counted
from ...transport.limits import Negotiation, QueueSize, Refusal
from ..common import command_line
from ..queue.info import group_name, user_name
from .findings import Code, ok, problem, skipped, warning

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...event_publisher.access import FileAccess, QueueAccess
    from ...transport.limits import HostLimits
    from ..queue.info import QueueInfo
    from .findings import Check, Field

#: Fewest bytes of a secret that can't be guessed; 16 are 128 bits.
SHORTEST_SECRET: Final = 16

#: Share of a queue's capacity in use that is worth a warning.
_NEARLY_FULL: Final = 0.9

#: Free inodes that a disk should have: a full spool of one writer has about 256 segments.
FEW_INODES: Final = 1_000

#: The file in which `deploy/` sets the sysctls of event queues.
_SYSCTL_FILE: Final = "/etc/sysctl.d/60-event-queues.conf"

#: What a queue that doesn't exist would be like: full size, smaller, or impossible; without a name and
#: with one.
_NEW_QUEUE: Final = (Code.NEW_QUEUE_POSSIBLE, Code.NEW_QUEUE_SMALLER, Code.NEW_QUEUE_IMPOSSIBLE)
_QUEUE_MISSING: Final = (Code.QUEUE_MISSING, Code.QUEUE_MISSING_SMALLER, Code.QUEUE_MISSING_IMPOSSIBLE)


def expected_size(asked: QueueSize, limits: HostLimits, taken: int = 0) -> QueueSize | None:
    """Return the size that an ordinary user gets who asks for one; None for none at all.

    Args:
        asked: The requested size.
        limits: The limits of the user's process.
        taken: Bytes charged for the user's other queues.
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
    """Judge whether an ordinary user may create a queue of the wanted size."""
    name = "kernel limits"
    pairs = (
        ("fs.mqueue.msg_max", limits.msg_max, wanted.max_messages),
        ("fs.mqueue.msgsize_max", limits.msgsize_max, wanted.max_message_size),
    )
    found = ", ".join(f"{sysctl} is {allowed:,} ({needed:,} needed)" for sysctl, allowed, needed in pairs)
    short = [f"{sysctl}={needed}" for sysctl, allowed, needed in pairs if allowed < needed]
    fields = {
        "msg_max": limits.msg_max,
        "msg_max_needed": wanted.max_messages,
        "msgsize_max": limits.msgsize_max,
        "msgsize_max_needed": wanted.max_message_size,
    }
    if not short:
        return ok(Code.SYSCTLS_SUFFICIENT, name, found, fields=fields)
    settings = " ".join(short)
    docker = " ".join(f"--sysctl {setting}" for setting in short)
    now, at_boot = f"sysctl -w {settings}", f"printf '%s\\n' {settings} >> {_SYSCTL_FILE}"
    return warning(
        Code.SYSCTLS_TOO_LOW,
        name,
        found,
        f"`{now}`, and for the next boot `{at_boot}`; with docker `{docker}`",
        commands=(now, at_boot),
        fields=fields,
    )


def judge_rlimit(wanted: QueueSize, limits: HostLimits, neighbours: Mapping[str, int]) -> Check:
    """Judge whether this user's queues may use the bytes charged for one of the wanted size.

    Args:
        wanted: The wanted size.
        limits: The limits of this process.
        neighbours: Bytes charged for this user's other queues, by POSIX name.
    """
    name = "RLIMIT_MSGQUEUE"
    charge, taken = wanted.bytes_charged, sum(neighbours.values())
    fields: dict[str, Field] = {"rlimit": limits.rlimit, "needed": charge, "neighbours": dict(neighbours)}
    if limits.rlimit is None:
        return ok(Code.RLIMIT_NONE, name, f"no limit ({counted(charge, 'byte')} needed)", fields=fields)
    found = f"{counted(limits.rlimit, 'byte')} for all queues of a user ({charge:,} needed)"
    if neighbours:
        found += f"; other queues of this user use {taken:,} of them: {', '.join(neighbours)}"
    if taken + charge <= limits.rlimit:
        return ok(Code.RLIMIT_SUFFICIENT, name, found, fields=fields)
    # Other queues may be invisible, as those of containers; together they use at most the current limit.
    advised = charge + limits.rlimit if neighbours else charge
    raise_limit = f"ulimit -q {advised}"
    return warning(
        Code.RLIMIT_TOO_LOW,
        name,
        found,
        f"for the services and the publisher: `{raise_limit}` as root in the bash that starts them, "
        f"`LimitMSGQUEUE={advised}` with systemd, `--ulimit msgqueue={advised}` with docker",
        commands=(raise_limit,),
        fields={**fields, "advised": advised},
    )


def judge_absence(
    queue: str | None, wanted: QueueSize, limits: HostLimits, taken: int, *, optional: bool = False
) -> Check:
    """Judge what becomes of a queue that isn't there yet.

    Args:
        queue: Its POSIX name, or None for any queue.
        wanted: The size that it should have.
        limits: The limits of this process.
        taken: Bytes charged for this user's other queues.
        optional: Whether the publisher can do without it, because it has a spool.
    """
    name = "queue"
    size = expected_size(wanted, limits, taken)
    fields: dict[str, Field] = {"queue": queue, "wanted": size_fields(wanted)}
    if queue is None:
        possible, smaller, impossible = _NEW_QUEUE
        who = "an ordinary user"
    else:
        possible, smaller, impossible = _QUEUE_MISSING
        who = f"{queue} doesn't exist; an ordinary user who creates it"
    if size is None and optional:
        return warning(
            Code.QUEUE_MISSING_BESIDE_SPOOL,
            name,
            f"{who} can't get one; the publisher delivers the spool, and retries",
            "set queue.transport = spool if no service needs the queue; otherwise raise the limits above",
            fields=fields,
        )
    if size is None:
        return problem(impossible, name, f"{who} can't get one", "raise the limits above", fields=fields)
    fields["expected"] = size_fields(size)
    if size == wanted:
        return ok(possible, name, f"{who} gets one of {size}", fields=fields)
    return ok(smaller, name, f"{who} gets one of {size} instead of {wanted}", fields=fields)


def size_fields(size: QueueSize) -> dict[str, int]:
    """Return a size in the form of `queue stat --json`."""
    return {"capacity": size.max_messages, "max_event_size": size.max_message_size}


def judge_queue_size(info: QueueInfo, wanted: QueueSize) -> Check:
    """Judge the size of an existing queue."""
    name = "queue size"
    fields: dict[str, Field] = {
        "queue": info.name,
        "size": size_fields(info.size),
        "wanted": size_fields(wanted),
    }
    if info.size.covers(wanted):
        found = f"{info.name} has room for {info.size} ({wanted} wanted)"
        return ok(Code.QUEUE_LARGE_ENOUGH, name, found, fields=fields)
    unlink = command_line("queue", "unlink", info.name)
    return warning(
        Code.QUEUE_TOO_SMALL,
        name,
        f"{info.name} has room for {info.size}, instead of {wanted}; a queue keeps the size that it was "
        "created with",
        "raise the limits above if they are too low; then, once the queue is empty, remove it: "
        f"`{unlink}`. The next service or publisher recreates it",
        commands=(unlink,),
        fields=fields,
    )


def judge_queue_depth(info: QueueInfo) -> Check:
    """Judge how full a queue is."""
    name = "queue depth"
    fields: dict[str, Field] = {"queue": info.name, "depth": info.depth, "capacity": info.size.max_messages}
    found = f"{info.depth:,} of {counted(info.size.max_messages, 'event')}"
    # A small queue is full from time to time.
    if info.depth < max(2, info.size.max_messages * _NEARLY_FULL):
        return ok(Code.QUEUE_HAS_ROOM, name, found, fields=fields)
    return warning(
        Code.QUEUE_NEARLY_FULL,
        name,
        f"{found}: nearly full, so services get EventQueueFullError",
        "check that a publisher of this queue runs, and that its log shows deliveries to the collector",
        fields=fields,
    )


def judge_queue_owner(info: QueueInfo, access: QueueAccess) -> Check:
    """Judge who owns a queue."""
    name = "queue owner"
    owner = user_name(info.uid)
    fields: dict[str, Field] = {"queue": info.name, "user": owner}
    if not access.foreign:
        return ok(Code.QUEUE_OWNER, name, f"user {owner}", fields=fields)
    unlink = command_line("queue", "unlink", info.name)
    return warning(
        Code.QUEUE_FOREIGN,
        name,
        f"user {owner}, neither this user nor root, can read all events and remove the queue",
        f"if that isn't intended, end that user's process, run `{unlink}` as root, and start the publisher "
        "first; otherwise run services and publisher as the same user, or with a common group and "
        "queue.mode = 0660",
        commands=(unlink,),
        fields=fields,
    )


def judge_queue_access(info: QueueInfo, access: QueueAccess) -> Check:
    """Judge who may use a queue.

    Args:
        info: The queue.
        access: Its permissions, with the mode that it should have.
    """
    mode, closed = access.wanted_mode, access.closed_mode
    name = "queue access"
    fields: dict[str, Field] = {
        "queue": info.name,
        "mode": f"{info.mode:04o}",
        "user": user_name(info.uid),
        "group": group_name(info.gid),
    }
    found = f"mode {info.mode:04o}: {info.readers} may remove events"
    less = f"; queue.mode ({mode:04o}) gives group {group_name(info.gid)} less access"
    openings = (
        (info.open_to_all, Code.QUEUE_OPEN_TO_ALL, ""),
        (access.writable_by_all, Code.QUEUE_WRITABLE_BY_ALL, ", and every user of this host may put events"),
        (access.open_to_group, Code.QUEUE_OPEN_TO_GROUP, less),
    )
    for is_open, code, words in openings:
        if is_open:
            setting = f"set queue.mode to {closed:04o}, and " if mode != closed else ""
            remedy = setting + info.chmod_command(closed)
            commands = info.chmod_commands(closed)
            return warning(code, name, found + words, remedy, commands=commands, fields=fields)
    return ok(Code.QUEUE_ACCESS_LIMITED, name, found, fields=fields)


def judge_file(path: str, access: FileAccess | None) -> Check:
    """Judge who may use the configuration file; None if it couldn't be inspected."""
    name = "configuration file"
    if access is None:
        return skipped(
            Code.CONFIGURATION_FILE_UNKNOWN,
            name,
            f"{path} isn't a file that can be inspected",
            fields={"path": path},
        )
    mode = f"{access.mode:04o}"
    fields: dict[str, Field] = {
        "path": path,
        "mode": mode,
        "user": user_name(access.uid),
        "group": group_name(access.gid),
        "holds_secret": "yes" if access.holds_secret else "no",
    }
    if access.writable_by_all:
        return warning(
            Code.CONFIGURATION_FILE_WRITABLE,
            name,
            f"mode {mode}: every user of this host may write to {path}, and redirect the events",
            f"as its owner: `{access.chmod}`",
            commands=(access.chmod,),
            fields=fields,
        )
    if access.readable_by_all:
        return warning(
            Code.CONFIGURATION_FILE_READABLE,
            name,
            f"mode {mode}: every user of this host may read key.secret in {path}",
            f"as its owner: `{access.chmod}`, or put the secret in an environment variable ($VARIABLE); "
            "replace the key if others use this host",
            commands=(access.chmod,),
            fields=fields,
        )
    if not access.holds_secret:
        found = f"mode {mode}: the secret isn't in the file, but in an environment variable"
    elif not access.reachable:
        found = f"mode {mode}, in a folder that other users can't enter"
    else:
        group = f" and group {group_name(access.gid)}" if access.mode & stat.S_IRGRP else ""
        found = f"mode {mode}: user {user_name(access.uid)}{group} may read it"
    return ok(Code.CONFIGURATION_FILE_CLOSED, name, found, fields=fields)


def judge_secret(size: int) -> Check:
    """Judge the key's secret by its length."""
    name = "key"
    if size >= SHORTEST_SECRET:
        return ok(
            Code.SECRET_LONG_ENOUGH,
            name,
            f"key.secret decodes to {counted(size, 'byte')}",
            fields={"size": size},
        )
    make = "openssl rand -base64 32"
    return warning(
        Code.SECRET_SHORT,
        name,
        f"key.secret decodes to only {counted(size, 'byte')}; it can be guessed, or is incomplete",
        f"check that it is complete, or create a new one with `{make}`",
        commands=(make,),
        fields={"size": size},
    )


def judge_space(name: str, key: str, *, free: int, used: int, max_size: int) -> Check:
    """Judge the free space on a disk.

    Args:
        name: Name of the check.
        key: The option that limits what is written.
        free: Bytes that this user may still write.
        used: Bytes that were written already.
        max_size: Bytes that the publisher may take in total.
    """
    fields: dict[str, Field] = {"key": key, "free": free, "used": used, "max_size": max_size}
    found = f"{counted(free, 'byte')} free, {used:,} of {max_size:,} ({key}) in use"
    if free >= max_size - used:
        return ok(Code.SPACE_SUFFICIENT, name, found, fields=fields)
    advised = max(free + used, 0) // 2
    return warning(
        Code.SPACE_TOO_SMALL,
        name,
        f"{found}: the disk will be full before {key} is reached",
        f"free space on that disk, or set {key} to {advised} or less",
        fields={**fields, "advised": advised},
    )


def judge_inodes(name: str, path: str, free: int | None) -> Check:
    """Judge the free inodes of a disk; None if it doesn't limit them."""
    fields: dict[str, Field] = {"path": path, "free": free}
    if free is None or free >= FEW_INODES:
        found = "not limited" if free is None else f"{free:,} free"
        return ok(Code.INODES_SUFFICIENT, name, found, fields=fields)
    return warning(
        Code.INODES_FEW,
        name,
        f"the disk of {path} can hold only {counted(free, 'more file')}, and each service has at least one "
        "segment",
        "delete files there, or use a disk with more inodes",
        fields=fields,
    )
