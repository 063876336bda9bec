"""Reads the events of all writers of a spool, and deletes what has reached its fate.

    reader             what the publisher calls
    turns              which segment of which writer is read next
    catalog            all segments: which came, went, are open, or are set aside
    followed_segment   one segment: how far it was read, and what of it is settled
    findings           what is settled without the publisher: headers, torn bytes, reports of refusals
    files              the folder, and the lock of its one reader; `hole_punching` gives space back
    watch              wakes the publisher, by `inotify`

One thread uses it, and nothing but `sync` waits.
"""
