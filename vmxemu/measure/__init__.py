"""The measuring room: patterns of addresses, the cases that are measured, the twin in C, and comparison with earlier runs."""
