"""The publisher's configuration: a section of an INI file becomes typed settings.

To add an option, declare it in `options`; then use it. Parsing, defaults, help and `--check` follow from
the declaration. Tests ask for the rest: `tests/project/test_readme.py` for the README's row,
`tests/event_publisher/config/` for an example.

| module | subject |
|---|---|
| `options` | every option, by group |
| `settings` | the settings of a publisher, and what must hold between options |
| `in_force` | the values in force, and what a reload changes |
| `neighbours` | conflicts between the sections of a file |
| `declare` | how an option is declared, and the kinds of values |
| `ini`, `ini_lines` | files, sections and error messages |
| `values` | texts to values |
"""
