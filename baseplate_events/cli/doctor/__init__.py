"""The command `doctor`: find out what keeps events from flowing, and what fixes it.

`findings` lists all that can be found. `checks`, `collector` and `probe` judge what was found, and are pure;
`host`, `memory`, `network`, `metrics`, `storage` and `publisher` find it.
"""
