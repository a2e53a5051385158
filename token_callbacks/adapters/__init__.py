"""Where the frameworks are hooked: the only files that import one. See ``hooks.py`` for when they are loaded."""
