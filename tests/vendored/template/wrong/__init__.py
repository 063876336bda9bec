"""Modules with one mistake each, which type checkers must find."""
