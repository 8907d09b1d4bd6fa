"""The ``lb`` command. Its modules parse, call and print; what they call knows nothing of click."""
