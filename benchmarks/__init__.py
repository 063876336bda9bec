"""Figures that the documentation tells, each from a command that anyone can run; not shipped."""
