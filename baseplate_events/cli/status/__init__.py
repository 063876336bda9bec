"""The command `status`: show what a running publisher is doing."""
