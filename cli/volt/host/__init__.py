"""Verbs about this host, which need no daemon."""
