"""Long runs. Each is a command that ends with 1 if a claim doesn't hold.

    python -m tests.soak.survival   real publishers that are killed and cut off, some six minutes
    python -m tests.soak.spool      services that are killed while they put into a spool, some five minutes
    python -m tests.soak.delivery   publishers and services that are killed on one spool, some ten minutes
    python -m tests.soak.fleet      a thousand simulated publishers, some minutes

Tests run all of them at a tiny scale, in a normal run of the suite.
"""
