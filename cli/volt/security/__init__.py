"""Verbs about confinement."""
