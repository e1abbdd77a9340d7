"""Verbs about images: names for trees in casd."""
