"""The command `doctor`: find out what keeps events from flowing, and how to fix it.

`command` runs the checks and prints them. `findings` says what a finding carries, and `codes` lists all that
can be found. `checks`, `collector`, `probe` and `transports` judge what was found, and are pure; `host`,
`memory`, `network`, `metrics`, `folders`, `letters`, `spool` and `publisher` find it. `timeouts` bounds work
that may hang.
"""
