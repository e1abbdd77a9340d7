"""Stellarium, the content-addressed store."""
