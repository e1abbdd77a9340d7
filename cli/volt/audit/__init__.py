"""Verbs about the audit logs."""
