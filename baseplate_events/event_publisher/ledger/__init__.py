"""The ledger: which records are in which batch, which have found their fate, and the dead letters.

One SQLite file. The publisher writes to it; commands read and delete dead letters meanwhile.

    ledger     `Ledger`: what is in memory, how the file follows it, and what happens if that fails
    rows       the tables, and how values become rows with a CRC; pure
    file       creates and opens the file, checks it, and keeps a damaged one aside
    letters    dead letters: the publisher's part, and `LetterFile` for commands
"""
