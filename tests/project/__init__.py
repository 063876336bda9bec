"""Tests of the repository itself: its README, deployment files, test vectors and layout."""
