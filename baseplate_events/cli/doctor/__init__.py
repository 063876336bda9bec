"""The command `doctor`: find out what keeps events from flowing, and what fixes it.

`checks` judges what was found, and is pure; `host`, `network`, `metrics` and `storage` find it.
"""
