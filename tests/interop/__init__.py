"""Tests beside baseplate.py."""
