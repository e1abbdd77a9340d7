"""Verbs about the store: casd."""
