"""What every Volt daemon and the command share. Nothing here knows one daemon from another but `api`."""
