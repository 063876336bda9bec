"""Mutation testing: small mistakes are planted in a copy of the package, and the tests must find each."""
