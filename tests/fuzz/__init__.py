"""Coverage-guided fuzzing of everything that reads foreign bytes: `tox -e fuzz`.

`targets` has what must hold for any bytes, `corpus/TARGET/` inputs that reach most of the code. The ordinary
suite runs each target with its corpus (`test_targets`). `python -m tests.fuzz` looks for new inputs with
atheris, which is libFuzzer for Python.
"""
