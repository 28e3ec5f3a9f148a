#!/usr/bin/env python3
"""Small QMP client.

As a module: Qmp(path), .execute(), .wait_event(), .close().
By hand: qmp.py SOCKET query COMMAND [JSON-ARGUMENTS]
         qmp.py SOCKET stop | cont | quit
         qmp.py SOCKET migrate URI [--target SOCKET]   to a QEMU started with -incoming defer (--target given: it is told
                                                       URI, resumed, and the source is quit) or one that listens already

A hung QEMU does not hang the caller: every wait has a bound.
"""
import json
import socket
import sys
import time


class QmpError(Exception):
    pass


class Qmp:
    def __init__(self, path, timeout=30.0):
        self.path = path
        self.events = []
        self.last = {}  # newest event of each name, also of those that a wait has used up
        self.buffer = b""
        end = time.monotonic() + timeout
        while True:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                self.sock.connect(path)
                break
            except (FileNotFoundError, ConnectionRefusedError) as e:
                self.sock.close()
                if time.monotonic() > end:
                    raise QmpError(f"{path}: no QEMU listens there after {timeout:.0f} s: {e}") from e
                time.sleep(0.01)
        greeting = self._message(end)
        if "QMP" not in greeting:
            raise QmpError(f"{path}: not a QMP greeting: {greeting}")
        self.execute("qmp_capabilities")

    def _message(self, end):
        while b"\n" not in self.buffer:
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self.sock.settimeout(left)
            try:
                data = self.sock.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                raise QmpError(f"{self.path}: QEMU closed the connection: see its log")
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        message = json.loads(line)
        if "event" in message:
            self.last[message["event"]] = message
        return message

    def execute(self, command, timeout=30.0, **arguments):
        """Run one command; arguments with '-' in their names are given with '_'."""
        request = {"execute": command}
        if arguments:
            request["arguments"] = {k.replace("_", "-"): v for k, v in arguments.items()}
        self.sock.sendall(json.dumps(request).encode() + b"\n")
        end = time.monotonic() + timeout
        while True:
            try:
                message = self._message(end)
            except TimeoutError:
                raise QmpError(f"{self.path}: no answer to {command} in {timeout:.0f} s") from None
            if "event" in message:
                self.events.append(message)
            elif "error" in message:
                raise QmpError(f"{self.path}: {command}: {message['error'].get('desc', message['error'])}")
            else:
                return message["return"]

    def wait_event(self, wanted, timeout=60.0, fail=None):
        """The next event for which wanted(event) is true, past ones first; they are used up. fail(event) raises."""
        end = time.monotonic() + timeout
        while True:
            while self.events:
                event = self.events.pop(0)
                if fail and fail(event):
                    raise QmpError(f"{self.path}: {event}")
                if wanted(event):
                    return event
            try:
                message = self._message(end)
            except TimeoutError:
                raise QmpError(f"{self.path}: awaited event did not come in {timeout:.0f} s") from None
            if "event" in message:
                self.events.append(message)

    def close(self):
        self.sock.close()


def event_ms(event):
    """QEMU's own stamp of an event, in ms."""
    stamp = event["timestamp"]
    return stamp["seconds"] * 1000 + stamp["microseconds"] / 1000


def is_event(name):
    return lambda event: event["event"] == name


def is_migration(*states):
    return lambda event: event["event"] == "MIGRATION" and event["data"]["status"] in states


CAPABILITIES = ("events", "return-path", "pause-before-switchover", "late-block-activate")
# max-bandwidth: no limit that a test's machine could reach. downtime-limit: QEMU stops the guest as soon as what is left
# to send fits into it by its own estimate, so it is the larger part of the pause: with QEMU's default of 300 ms the pauses
# of a nearly still guest were 28 to 357 ms, with 30 ms they were 35 to 92 ms.
PARAMETERS = {"max_bandwidth": 1 << 30, "downtime_limit": 30}


def migration_prepare(qmp, capabilities=CAPABILITIES, **parameters):
    qmp.execute("migrate-set-capabilities",
                capabilities=[{"capability": c, "state": True} for c in capabilities])
    qmp.execute("migrate-set-parameters", **{**PARAMETERS, **parameters})


def tls(qmp, psk_dir, client):
    """Migrations of this QEMU go over TLS-PSK with the key in psk_dir/keys.psk (identity qemu), as the VMs' do."""
    try:
        qmp.execute("object-del", id="migration")  # of the move before
    except QmpError:
        pass
    qmp.execute("object-add", qom_type="tls-creds-psk", id="migration", dir=psk_dir, endpoint="client" if client else "server",
                **({"username": "qemu"} if client else {}))


def migrate(source, target, uri, timeout=120.0, at_switchover=None, psk_dir=None):
    """Pre-copy in the steps of the project's coordinator. The target executes only after the source is complete and both
    are paused. Returns times in ms by QEMU's own stamps; the guest runs on the target afterwards, the source is still
    there, paused. On failure before the switch-over the source goes on. psk_dir: over TLS-PSK (tls())."""
    for qmp in (source, target):
        if psk_dir:
            tls(qmp, psk_dir, qmp is source)
        migration_prepare(qmp, tls_creds="migration" if psk_dir else "")
    bad = is_migration("failed", "cancelled")
    target.execute("migrate-incoming", uri=uri)
    begin = time.monotonic()
    source.execute("migrate", uri=uri)
    try:
        source.wait_event(is_migration("pre-switchover"), timeout, bad)
        if at_switchover:
            at_switchover()
        source.execute("migrate-continue", state="pre-switchover")
        source.wait_event(is_migration("completed"), timeout, bad)
    except QmpError:
        state = source.execute("query-migrate").get("status")
        if state in ("active", "pre-switchover", "setup", "device"):
            source.execute("migrate_cancel")
        raise
    target.wait_event(is_migration("completed"), timeout, is_migration("failed"))
    target.execute("cont")
    resume = target.wait_event(is_event("RESUME"), timeout)
    total = (time.monotonic() - begin) * 1000
    info = source.execute("query-migrate")
    stop = source.last.get("STOP")
    return {"total_ms": round(total, 3), "qemu_downtime_ms": info.get("downtime"),
            "stop_resume_ms": round(event_ms(resume) - event_ms(stop), 3) if stop else None,
            "transferred_bytes": info.get("ram", {}).get("transferred")}


def main(argv):
    if len(argv) < 3:
        print(__doc__, file=sys.stderr)
        return 2
    path, verb, rest = argv[1], argv[2], argv[3:]
    try:
        qmp = Qmp(path, 5)
        if verb in ("stop", "cont", "quit") and not rest:
            qmp.execute(verb)
        elif verb == "query" and rest:
            print(json.dumps(qmp.execute(rest[0], **(json.loads(rest[1]) if len(rest) > 1 else {}))))
        elif verb == "migrate" and len(rest) == 3 and rest[1] == "--target":
            print(json.dumps(migrate(qmp, Qmp(rest[2], 5), rest[0])))
            qmp.execute("quit")
        elif verb == "migrate" and len(rest) == 1:
            migration_prepare(qmp, ("events",))
            qmp.execute("migrate", uri=rest[0])
            event = qmp.wait_event(is_migration("completed", "failed", "cancelled"), 300)
            print(json.dumps(event["data"]))
            return event["data"]["status"] != "completed"
        else:
            print(__doc__, file=sys.stderr)
            return 2
    except (QmpError, OSError) as e:
        print(f"qmp: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
