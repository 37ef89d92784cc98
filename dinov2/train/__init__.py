"""A run: its parts, its steps, what it writes down, and how it stops and goes on."""
