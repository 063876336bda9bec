"""What runs inside the machine, with the Python of its Debian."""
