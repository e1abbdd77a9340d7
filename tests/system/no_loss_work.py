"""Creates, deletes and sets refs while the daemons are restarted: `no_loss_work.py SITE OPERATIONS RESTARTS HOW`.

HOW is `term` or `kill`. Every change can be made only once (a name that is free, a ref that is as expected), so that
a second effect shows as an error. Prints what came of it as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import Counter

sys.path.append(sys.argv[1])

from volt_common.api import cas, ctr
from volt_common.client.blocking import Client
from volt_common.errors import NotFound, Unknown, Unreachable, VoltError

WORKERS = 4
IMAGE = "debian:test"


class Work:
    def __init__(self, operations: int, restarts: int, how: str) -> None:
        self.operations = operations
        self.restarts = restarts
        self.how = how
        self.lock = threading.Lock()
        self.begun = 0
        self.restarted = 0
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []

    def more(self) -> bool:
        """Whether another operation is wanted."""
        with self.lock:
            if self.wrong or (self.begun >= self.operations and self.restarted >= self.restarts):
                return False
            self.begun += 1
            return True

    def count(self, what: str) -> None:
        with self.lock:
            self.counts[what] += 1

    def restart(self) -> None:
        """Evenly over the operations."""
        for number in range(self.restarts):
            while self.begun < self.operations * number // self.restarts and not self.wrong:
                time.sleep(0.002)
            daemons = ["volt-casd", "volt-ctrd"]
            command = ["systemctl", "restart"] if self.how == "term" else ["systemctl", "kill", "-s", "KILL"]
            subprocess.run([*command, *daemons], check=False, capture_output=True)
            with self.lock:
                self.restarted += 1

    def settle(self, client: Client, call, known) -> bool:
        """Make a change, whose outcome `known()` tells where the answer does not; whether it took effect."""
        try:
            client.call(call)
            self.count("answered")
            return True
        except Unknown:
            self.count("unknown")
            assert self.how == "kill", "a daemon that was asked to stop forgot an answer"
        except Unreachable:  # ctrd lives, and casd was killed under it: refused, or cut off inside
            self.count("unreachable")
            assert self.how == "kill", "a daemon that was asked to stop was away"
        return bool(known(client))

    def ask(self, client: Client, call):
        """A look, which may be repeated: it changes nothing."""
        while True:
            try:
                return client.call(call)
            except NotFound:
                return None
            except Unreachable:
                time.sleep(0.02)

    def containers(self, worker: int) -> None:
        with Client("ctrd") as client:
            number = 0
            while self.more():
                name = f"n{worker}-{number}"
                number += 1
                look = ctr.Inspect(name=name)
                spec = ctr.Spec(image=IMAGE, args=["true"])
                while not self.settle(client, ctr.Create(name=name, spec=spec), lambda c, q=look: self.ask(c, q)):
                    pass
                assert self.ask(client, look) is not None, f"{name} was created and is not there"
                if number % 2:
                    continue
                while not self.settle(client, ctr.Delete(name=name), lambda c, q=look: self.ask(c, q) is None):
                    pass
                assert self.ask(client, look) is None, f"{name} was deleted and is there"

    def refs(self, worker: int, trees: list[str]) -> None:
        """Each set expects what the one before left."""
        name = f"test/w{worker}"
        look = cas.RefGet(name=name)
        with Client("casd") as client:
            before = self.ask(client, look)
            now = before.digest if before else ""
            while self.more():
                wanted = trees[0] if now != trees[0] else trees[1]
                call = cas.RefSet(name=name, kind="tree", digest=wanted, expect=now)

                def done(c: Client, old=now, w=wanted) -> bool:
                    ref = self.ask(c, look)
                    assert (ref.digest if ref else "") in (old, w), "a ref is neither what it was nor what was set"
                    return ref is not None and ref.digest == w

                while not self.settle(client, call, done):
                    pass
                now = wanted
                ref = self.ask(client, look)
                assert ref is not None, f"{name} was set and is not there"
                assert ref.digest == now, f"{name} was set and is not so"

    def guarded(self, work, *arguments) -> None:
        try:
            work(*arguments)
        except (VoltError, AssertionError) as error:
            with self.lock:
                self.wrong.append(f"{type(error).__name__}: {error}")


def main(operations: int, restarts: int, how: str) -> None:
    work = Work(operations, restarts, how)
    with Client("casd") as casd:
        trees = [casd.call(cas.RefGet(name=f"images/{name}")).digest for name in ("debian/test", "small/latest")]
    threads = [threading.Thread(target=work.guarded, args=(work.containers, n)) for n in range(WORKERS // 2)]
    threads += [threading.Thread(target=work.guarded, args=(work.refs, n, trees)) for n in range(WORKERS // 2)]
    threads += [threading.Thread(target=work.restart)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told = {"operations": work.begun, "restarts": work.restarted, "counts": work.counts, "wrong": work.wrong}
    print(json.dumps(told))


if __name__ == "__main__":
    main(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
