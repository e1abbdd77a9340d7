"""The life of a daemon: a new one is a class with `handle`, a contract, and a call of `run`."""

from volt_common.daemon.life import Daemon, Sandbox, run
from volt_common.daemon.peers import Peer
from volt_common.daemon.serve import PeerGone, Request

__all__ = ["Daemon", "Peer", "PeerGone", "Request", "Sandbox", "run"]
