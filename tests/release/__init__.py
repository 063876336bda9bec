"""What would be published."""
