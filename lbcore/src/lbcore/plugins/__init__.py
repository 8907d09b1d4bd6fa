"""The plugin system: hook specifications, what a hook returns, and the loader."""
