"""The command. One file per verb; `main` finds it, and nothing is imported that the verb does not use."""

__version__ = "0.1.0"
