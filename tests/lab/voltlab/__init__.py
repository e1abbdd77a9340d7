"""The lab: machines of their own, with real systemd and Volt installed as a user would, on any Linux host."""
