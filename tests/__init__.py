"""The tests, one module a room; what they share is in modules without `test_`."""
