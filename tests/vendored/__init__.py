"""The package as a vendored copy."""
