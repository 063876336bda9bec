"""Tests under real servers."""
