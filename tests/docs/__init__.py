"""README.md and docs/*.md: whatever they show is run, parsed or compared."""
