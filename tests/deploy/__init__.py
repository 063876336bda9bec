"""What `deploy/` holds, checked by the tools that know such files, and tried under a real systemd."""
