"""Tests for type checkers."""
