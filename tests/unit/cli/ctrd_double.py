"""A ctrd without systemd: the real skeleton and contract, and a plain child process for each container.

python ctrd_double.py --listen DIR --idle 0 --no-landlock
"""

import asyncio
import fcntl
import os
import signal
import socket
import struct
import subprocess
import termios
import threading

from volt_common.api import ctr
from volt_common.api.base import Nothing
from volt_common.daemon import Sandbox, run
from volt_common.errors import AlreadyExists, Conflict, Denied, NotFound


class Process:
    """A payload: its exit code is a future."""

    def __init__(self, args, fds, tty):
        if tty:
            self.child, self.bridge = on_terminal(args, fds[0])
        else:
            self.child = subprocess.Popen(args, stdin=fds[0], stdout=fds[1], stderr=fds[2], start_new_session=True)
            self.bridge = None
        for fd in fds:
            os.close(fd)
        self.ended = asyncio.get_running_loop().run_in_executor(None, self.wait)

    def wait(self):
        code = self.child.wait()
        if self.bridge is not None:
            self.bridge.join()
        return ctr.Exit(128 - code if code < 0 else code, max(0, -code), "signal" if code < 0 else "exit", "now")


def on_terminal(args, fd):
    """A pty for the payload, joined to the caller's packets."""
    master, slave = os.openpty()
    packets = socket.socket(fileno=os.dup(fd))

    def own_terminal():
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    size = packets.recv(1 << 16)
    resize(master, size)
    child = subprocess.Popen(args, stdin=slave, stdout=slave, stderr=slave, preexec_fn=own_terminal)
    os.close(slave)

    def typed():
        while packet := packets.recv(1 << 16):
            if packet[0] == 0:
                os.write(master, packet[1:])
            else:
                resize(master, packet)

    def shown():
        try:
            while data := os.read(master, 4096):
                packets.send(data)
        except OSError:  # EIO: the last process on the terminal is gone
            pass
        packets.shutdown(socket.SHUT_RDWR)

    threading.Thread(target=typed, daemon=True).start()
    bridge = threading.Thread(target=shown)
    bridge.start()
    return child, bridge


def resize(master, packet):
    assert packet[:1] == b"\1"
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", *struct.unpack("!HH", packet[1:]), 0, 0))


class Double:
    name = "ctrd"
    interface = ctr.Interface
    descriptors = ctr.Descriptors

    def __init__(self):
        self.roles = {}
        self.specs, self.running, self.waiting = {}, {}, {}

    def sandbox(self):
        return Sandbox()

    async def start(self, config):
        pass

    async def stop(self):
        for process in self.running.values():
            if process.child.poll() is None:
                os.killpg(process.child.pid, signal.SIGKILL)

    async def reload(self, config):
        pass

    def busy(self):
        return False

    def told(self, name):
        if name not in self.specs:
            raise NotFound(kind="container", name=name)
        spec = self.specs[name]
        process = self.running.get(name)
        state = ctr.State.RUNNING if process and process.child.poll() is None else ctr.State.STOPPED
        return ctr.Container(name, "0" * 32, spec.image, "", spec.mode, state, "now", 0, spec.args, spec=spec)

    async def handle(self, call, request):
        match call:
            case ctr.Create(name=name, spec=spec):
                return self.told(self.make(name, spec))
            case ctr.List():
                for name in sorted(self.specs):
                    await request.item(self.told(name))
                return Nothing()
            case ctr.Events(name=name):
                await request.item(ctr.Event("now", "start", name or "web", {"a": "b"}))
                await asyncio.Event().wait()
                return Nothing()
            case ctr.Start(name=name):
                if self.told(name).image == "refused":
                    raise Denied("the policy forbids it")
                return self.told(name)
            case ctr.Wait(name=name):
                if name in self.waiting:
                    # Only now, so that a caller that is told of the payload is ready to pass on signals to it.
                    self.running[name] = Process(self.specs[name].args, self.waiting.pop(name), tty=False)
                if name not in self.running:
                    raise Conflict(kind="container", name=name, state="stopped")
                exit = await asyncio.shield(self.running[name].ended)
                if self.specs[name].remove:
                    del self.specs[name]
                return exit
            case ctr.Kill(name=name, signal=number):
                self.running[name].child.send_signal(getattr(signal, number))
                return Nothing()
            case ctr.Delete(name=name):
                self.told(name)
                del self.specs[name]
                return Nothing()
            case ctr.Explain():
                return ctr.Explained("unit", "{}", ["a", "b c"], ["m"], {"k": "v"})
            case _:
                return self.told(call.name)

    def make(self, name, spec):
        name = name or "made-up"
        if name in self.specs:
            raise AlreadyExists(kind="container", name=name)
        self.specs[name] = spec
        return name

    async def handle_packet(self, call, request):
        match call:
            case ctr.RunNew(name=name, spec=spec):
                if spec.image == "refused":
                    raise Denied("the policy forbids it")
                return await self.handle_packet(ctr.Run(name=self.make(name, spec)), request)
            case ctr.Run(name=name):
                spec = self.specs[name]
                if spec.image == "refused":
                    raise Denied("the policy forbids it")
                if spec.tty:
                    self.running[name] = Process(spec.args, request.take_fds(), tty=True)
                else:
                    self.waiting[name] = request.take_fds()
                return ctr.Running(name)
            case ctr.Exec():
                process = Process(call.args, request.take_fds(), call.tty)
                try:
                    await request.item(ctr.Running(call.name, process.child.pid))
                    return await asyncio.shield(process.ended)
                except BaseException:  # the caller has gone, or interrupts it
                    os.killpg(process.child.pid, signal.SIGKILL)
                    raise
        raise NotFound(kind="terminal", name=call.name)


if __name__ == "__main__":
    run(Double())
