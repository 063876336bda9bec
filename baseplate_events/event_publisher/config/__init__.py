"""The publisher's configuration: an INI section becomes typed settings."""
