"""What power cuts take: `python -m tests.machine.cuts`.

plan      which cuts are made, and at which moments; pure
scene     one cut: a machine under load, the cut, and what arrives after the next boot
oracle    compares what was put with what arrived, and with what docs/operations.md promises; pure
results   the file of results, and the table of them
"""
