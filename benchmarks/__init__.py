"""The figures in the documentation, each from a command that anyone can run; not shipped."""
