"""Completion for shells. The scripts ask `volt __complete` for every word, so they know what is built, and
the names of what is there now."""
