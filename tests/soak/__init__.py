"""Long runs, each by a command that ends with 1 if a claim does not hold.

    python -m tests.soak.survival   real publishers that are killed and cut off, some six minutes
    python -m tests.soak.fleet      a thousand simulated publishers, some minutes

The tests beside them run both at a tiny scale, in a normal run of the suite.
"""
