"""The files in `deploy/`, checked by the tools for such files, and tried under a real systemd."""
