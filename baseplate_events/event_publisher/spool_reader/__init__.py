"""Reads the events of all writers of a spool, and deletes segments when all their events are done.

    reader             the interface for the publisher
    turns              which segment of which writer is read next
    catalog            all segments: which are new, gone, open, or set aside
    followed_segment   one segment: how far it was read, and which bytes are settled
    lost_header        what a damaged header was
    findings           bytes that the reader settles itself: headers, torn bytes, reports of refusals
    files              the folder, and the lock of its only reader; `hole_punching` frees space
    watch              wakes the publisher, by `inotify`

Used by one thread; only `sync` waits.
"""
