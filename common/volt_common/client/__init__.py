"""Clients of the daemons: `blocking` for the command, `asyncio` for daemons."""
