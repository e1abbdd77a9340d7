"""ctrd, the container daemon: it writes what a container shall be and asks systemd to start it."""
