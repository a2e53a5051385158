"""Real provider exchanges, replayed through the real frameworks, with the provider's own figures as the truth."""
