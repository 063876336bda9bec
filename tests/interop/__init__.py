"""Tests beside the original."""
