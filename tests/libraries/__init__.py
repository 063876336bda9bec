"""JSON events of classes from other libraries."""
