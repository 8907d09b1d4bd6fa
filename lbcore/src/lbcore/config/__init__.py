"""The configuration: a TOML file becomes frozen dataclasses, or an error that names file and key."""
