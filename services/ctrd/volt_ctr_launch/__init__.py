"""The root launchers of containers: what volt-container@, volt-container-op@ and volt-exec@ run as root.

This is trusted code. It takes nothing from a daemon but one JSON file per container or operation and descriptors, and
treats both as hostile; what it trusts is root-owned files and the kernel. Standard library only, no import of Volt's.

Read in this order: `main` (which launcher), `start` (a container's way to systemd-nspawn), then what `start` calls:
`config`, `policy`, `ids`, `views`, `root`, `binds`, `streams`, `nspawn`. `ended`, `stop`, `op` and `execute` are the
other launchers. `kernel` holds the system calls that Python lacks.
"""
