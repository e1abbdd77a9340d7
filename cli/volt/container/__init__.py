"""Verbs about containers: ctrd."""
