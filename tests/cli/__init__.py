"""The command line, as users drive it: arguments, pipes, and terminals of several widths."""
