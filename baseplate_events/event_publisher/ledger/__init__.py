"""The ledger: which records of segments are in which batch, which are done, and the dead letters.

One SQLite file. The publisher writes to it; commands may read and delete dead letters at the same time.

    ledger     `Ledger`: the state in memory, the file that mirrors it, and what happens on errors
    rows       the tables, and the conversion of values to rows with a CRC; pure
    file       creates and opens the file, checks it, and keeps a damaged one aside
    letters    dead letters: for the publisher, and `LetterFile` for commands
"""
