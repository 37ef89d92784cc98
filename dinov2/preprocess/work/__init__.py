"""The conversion itself: many files, some processes, a shelf that remembers what is done."""
