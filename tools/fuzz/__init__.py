"""Fuzzing of everything that reads a file: `python tasks.py fuzz [READER ...] --count N --seed S`."""
