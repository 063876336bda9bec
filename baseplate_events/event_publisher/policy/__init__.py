"""What the publisher decides. Pure: no I/O, no clock, no threads, no logging.

In the order in which a batch passes:

    admission    which events may be taken, and how they become batches
    batching     bytes in, batches out, and the two formats of a body
    pending      batches that wait or are in flight: their order and their memory
    delivery     what is sent when, and what becomes of it; it uses all the others
    wire         the request and the response: headers, signature, compression
    outcome      what a response, or its absence, means for its batch
    poison       whether a batch or the collector is at fault
    backoff      when the next attempt may start, and how many at a time
    rejection    events that are given up
    accounting   every event has one fate, which is counted

and what they pass to each other: `journal` (what is written down for the next run), `span` and `byte_ranges`
(where events are in a spool).
"""
