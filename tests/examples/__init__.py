"""The examples as their readers run them, and what they promise beside."""
