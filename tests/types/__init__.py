"""Tests that run type checkers on what a service writes; `tests/typing` is for those of the repository."""
