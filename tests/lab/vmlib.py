"""Test guests in a lab: boot one on a node, migrate it between nodes, measure from outside how long it stood still.

    lab = Lab("name").up("--no-volume")
    guest = Guest(lab, "vm1", "/srv/csv/.raw/img.vhd")      # path as the nodes see it; raw
    guest.boot("n1")
    result = guest.migrate("n2")                            # {"pause_ms": …, "total_ms": …, …}
    guest.check_records(image, offset, node="n3")           # {"lost": [], "doubled": [], …}, read on n3
    guest.end()

Invariants
- The pause is the longest silence between two ticks stamped by a receiver outside every guest; one tick period is in it.
- Two QEMUs of one guest run side by side only while the target is paused; the source quits before migrate() returns.
- Every wait has a bound and ends in an error that says what was awaited.
"""
import json
import os
import shutil
import signal
import struct
import subprocess
import tempfile
import zlib

import qmp as qmplib

HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = os.environ.get("CSV_BUILD") or os.path.dirname(os.path.dirname(HERE))


class VmError(Exception):
    pass


def tcg_memory(mib):
    """For -m under TCG. QEMU before 9.0 loses writes of a migrating guest when its memory is a multiple of 64 pages: t-vm-memory."""
    return f"{(mib << 10) + 8}K"


def program(name):
    path = os.path.join(BUILD, "tests/lab", name)
    if not os.access(path, os.X_OK):
        raise VmError(f"program {path} is missing: run make, or set CSV_BUILD")
    return path


def run(*argv, timeout=300):
    p = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=timeout)
    if p.returncode:
        raise VmError(f"{' '.join(argv)}: exit {p.returncode}: {p.stderr.strip() or p.stdout.strip()}")
    return p.stdout.strip()


class Lab:
    def __init__(self, name):
        self.name = name
        self.mine = False
        self.ips = {}

    def __call__(self, *args, timeout=300):
        return run(os.path.join(HERE, "lab"), "--name", self.name, *args, timeout=timeout)

    def up(self, *args):
        self.mine = True
        self("up", *args)
        return self.look()

    def look(self):
        """Take over a lab that is up already."""
        status = json.loads(self("status", "-o", "json"))
        self.ips = {n["name"]: n["ip"] for n in status["nodes"]}
        self.state_dir = status["state_dir"]
        return self

    def exec_argv(self, node, *argv):
        return [os.path.join(HERE, "lab"), "--name", self.name, "exec", node, "--", *argv]

    def down(self):
        if self.mine:
            self("down")


class TickReceiver:
    """The program that stamps arrivals; see tickrecv.c for its commands."""

    def __init__(self, socket_path, log_path):
        self.path = socket_path
        self.log = log_path
        self.process = subprocess.Popen([program("tickrecv"), socket_path, log_path], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        self._answer()

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise VmError(f"tickrecv {self.path}: ended unexpectedly")
        return json.loads(line)

    def ask(self, *words):
        self.process.stdin.write(" ".join(str(w) for w in words) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def need(self, what, *words):
        answer = self.ask(*words)
        if not answer["ok"]:
            raise VmError(f"{what}: {json.dumps(answer)}; all it said is in {self.log}")
        return answer

    def end(self):
        if self.process.poll() is None:
            self.process.stdin.close()
            self.process.wait(10)


class Guest:
    counter = 0

    def __init__(self, lab, name, disk, memory_mib=192, append="", boot_from_disk=False, rec_dev="/dev/vda",
                 port=4500, disk_options="cache.direct=on"):
        self.lab, self.name, self.disk = lab, name, disk
        self.memory_mib, self.port, self.disk_options = memory_mib, port, disk_options
        self.boot_from_disk = boot_from_disk
        self.append = f"console=ttyS1 quiet panic=-1 csv.rec_dev={rec_dev} {append}".strip()
        self.dir = tempfile.mkdtemp(prefix=f"{name}.", dir=os.path.join(lab.state_dir, "sock"))
        self.node = None
        self.qemu = None
        self.qmp = None
        self.generation = 0
        self.marks = 0
        self.kernel = self.initrd = None
        self.ticks = TickReceiver(os.path.join(self.dir, "tick"), os.path.join(self.dir, "tick.log"))

    def _argv(self, sock):
        argv = ["qemu-system-x86_64", "-name", self.name, "-accel", "tcg", "-machine", "pc-q35-7.2", "-cpu", "qemu64",
                "-m", tcg_memory(self.memory_mib), "-smp", "1", "-nodefaults", "-no-user-config", "-display", "none",
                "-S", "-qmp", f"unix:{sock},server=on,wait=off",
                "-chardev", f"socket,id=tick,path={self.ticks.path},server=off",
                "-device", "isa-serial,id=serial0,chardev=tick,index=0",
                "-chardev", f"file,id=console,path={self.dir}/console.log,append=on",
                "-device", "isa-serial,id=serial1,chardev=console,index=1",
                "-blockdev", f"file,node-name=file0,filename={self.disk},{self.disk_options}",
                "-blockdev", "raw,node-name=disk0,file=file0,cache.direct=on",
                "-device", "virtio-blk-pci,id=vblk0,drive=disk0,bus=pcie.0,addr=0x5,bootindex=1,"
                "werror=stop,rerror=stop"]
        if not self.boot_from_disk:
            argv += ["-kernel", self.kernel, "-initrd", self.initrd, "-append", self.append]
        return argv

    def _launch(self, node, *more):
        self.generation += 1
        sock = os.path.join(self.dir, f"qmp{self.generation}")
        log = open(os.path.join(self.dir, f"qemu{self.generation}.log"), "w")
        process = subprocess.Popen(self.lab.exec_argv(node, *self._argv(sock), *more), stdin=subprocess.DEVNULL,
                                   stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        log.close()
        try:
            return process, qmplib.Qmp(sock, 20)
        except qmplib.QmpError as e:
            process.kill()
            text = open(os.path.join(self.dir, f"qemu{self.generation}.log")).read().strip()
            raise VmError(f"guest {self.name} on {node}: {e}; QEMU said: {text}") from e

    def boot(self, node, timeout_s=120, first_record=5):
        """Start it on the node and wait until it ticks and has written records."""
        if not self.boot_from_disk:
            guest_sh = os.path.join(HERE, "guest.sh")
            self.kernel = run(guest_sh, "kernel")
            self.initrd = os.path.join(self.dir, "initrd")
            run(guest_sh, "initrd", self.initrd)
        self.qemu, self.qmp = self._launch(node)
        self.node = node
        self.qmp.execute("cont")
        self.ticks.need(f"guest {self.name}: no tick after boot", "ticks", 20, timeout_s * 1000)
        self.ticks.need(f"guest {self.name}: no record after boot", "record", first_record, timeout_s * 1000)
        return self

    def mark(self):
        self.marks += 1
        name = f"m{self.marks}"
        self.ticks.need("mark", "mark", name)
        return name

    def wait_ticks(self, n, timeout_s=60):
        self.ticks.need(f"guest {self.name}: no {n} further ticks", "ticks", n, timeout_s * 1000)

    def wait_records(self, more, timeout_s=60):
        top = self.ticks.ask("report")["record_max"]
        self.ticks.need(f"guest {self.name}: no {more} further records", "record", top + more, timeout_s * 1000)

    def silence(self, action, after_ticks=20):
        """Run action; returns (what it returned, the gap report from just before to after_ticks ticks afterwards)."""
        a = self.mark()
        result = action()
        self.wait_ticks(after_ticks)
        return result, self.ticks.need("gap", "gap", a, self.mark())

    def migrate(self, to, at_switchover=None, after_ticks=20):
        """Live migration to node `to`; returns times in ms."""
        target, target_qmp = self._launch(to, "-incoming", "defer")
        uri = f"tcp:{self.lab.ips[to]}:{self.port}"
        source, source_qmp, source_node = self.qemu, self.qmp, self.node
        source_qmp.events.clear()
        source_qmp.last.clear()
        try:
            moved, gap = self.silence(
                lambda: qmplib.migrate(source_qmp, target_qmp, uri, at_switchover=at_switchover), after_ticks)
        except (qmplib.QmpError, VmError) as e:
            log = open(os.path.join(self.dir, f"qemu{self.generation}.log")).read().strip()
            target.kill()
            target.wait()
            raise VmError(f"guest {self.name}: migration {source_node} -> {to}: {e}; target said: {log}") from e
        source_qmp.execute("quit")
        source_qmp.close()
        source.wait(30)
        self.qemu, self.qmp, self.node = target, target_qmp, to
        return {"from": source_node, "to": to, "pause_ms": gap["longest_ms"], "tick_median_ms": gap["median_ms"],
                **moved, "gaps": gap["gaps"]}

    def report(self):
        return self.ticks.ask("report")

    def last_words(self):
        """What somebody needs who asks why a guest stopped: state of QEMU, end of the console and of QEMU's own words."""
        words = []
        try:
            words.append(f"QEMU says {self.qmp.execute('query-status', timeout=5)}")
        except (qmplib.QmpError, OSError, AttributeError) as e:
            words.append(f"QEMU does not answer: {e}, exit code {self.qemu.poll() if self.qemu else None}")
        for name in ["console.log"] + [f"qemu{n}.log" for n in range(self.generation + 1)]:
            try:
                with open(os.path.join(self.dir, name), errors="replace") as f:
                    text = f.read().strip()
            except OSError:
                continue
            if text:
                words.append(f"{name}: ... {text[-800:]}")
        return f"guest {self.name} on {self.node}: " + "\n  ".join(words)

    def end(self):
        """Stop everything of the guest; harmless when it is gone already."""
        if self.qemu and self.qemu.poll() is None:
            try:
                self.qmp.execute("quit", timeout=10)
                self.qemu.wait(20)
            except (qmplib.QmpError, OSError, subprocess.TimeoutExpired):
                self.qemu.kill()
                self.qemu.wait()
        self.ticks.end()
        shutil.rmtree(self.dir, ignore_errors=True)

    def check_records(self, path, offset=0, size=4096, node=None):
        """Compare the disk, as node (or this machine) reads it, with what the guest said; the guest must have ended or be
        paused. Returns a dict with lost (said durable, not on the disk), doubled (said twice), foreign (blocks between
        that are no record in their place)."""
        said = self.said_records()
        top = max(said, default=0)
        if node is None:
            with open(path, "rb") as f:
                f.seek(offset)
                data = f.read((top + 64) * size)
        else:
            data = self._read_on(node, path, offset, (top + 64) * size)
        lost, foreign, boots, tail = [], [], set(), 0
        for number in range(1, top + 1):
            verdict, boot = record_verdict(data[(number - 1) * size:number * size], number)
            if verdict != "ok":
                (lost if number in said else foreign).append((number, verdict))
            else:
                boots.add(boot)
        # What was written but not yet said when the guest ended: it follows without a hole.
        while record_verdict(data[(top + tail) * size:(top + tail + 1) * size], top + tail + 1)[0] == "ok":
            tail += 1
        return {"said": len(said), "highest": top, "unsaid": top - len(said), "lost": lost, "foreign": foreign,
                "doubled": sorted(n for n, times in said.items() if times > 1), "boots": len(boots), "unsaid_tail": tail}

    def _read_on(self, node, path, offset, length):
        mib = 1 << 20
        first, last = offset // mib, (offset + length + mib - 1) // mib
        p = subprocess.run(self.lab.exec_argv(node, "dd", f"if={path}", "bs=1M", f"skip={first}", f"count={last - first}",
                                              "iflag=direct,fullblock", "status=none"),
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=300)
        if p.returncode:
            raise VmError(f"{path} on {node} cannot be read: {p.stderr.decode().strip()}")
        return p.stdout[offset - first * mib:][:length]

    def said_records(self):
        self.ticks.ask("report")
        said = {}
        with open(self.ticks.log, encoding="ascii", errors="replace") as f:
            for line in f:
                words = line.split()
                if len(words) == 4 and words[2] == "R" and words[3].isdigit():
                    said[int(words[3])] = said.get(int(words[3]), 0) + 1
        return said


def records_wrong(records, at_least, switches):
    """What is wrong with the result of check_records(), one line each.

    At each of the `switches` of host the line that says a record may be cut in two, its head on the old host's serial port and its
    tail on the new one's: such a record is on the disk in its place, it only was not said in one piece."""
    if records["lost"]:
        yield f"{len(records['lost'])} records lost, first {records['lost'][0]}"
    if records["doubled"]:
        yield f"{len(records['doubled'])} records doubled, first {records['doubled'][0]}: two QEMUs executed"
    if records["foreign"] or records["unsaid"] > switches:
        yield f"records not in sequence: {records['unsaid']} were never said, on the disk {records['foreign'][:3]}"
    if records["boots"] != 1:
        yield f"{records['boots']} boots wrote the records instead of one"
    if records["said"] < at_least:
        yield f"only {records['said']} records were written, {at_least} are needed to show anything"


def record_verdict(block, number):
    """Judge one block as guest_init writes it: ("ok", boot id) or (what is wrong, None)."""
    if len(block) < 64:
        return f"block of {len(block)} bytes", None
    magic, n, _ms, boot = struct.unpack_from("<8sQQQ", block)
    if magic != b"CSVREC01":
        return "no record", None
    if n != number:
        return f"record {n}", None
    if struct.unpack_from("<I", block, len(block) - 4)[0] != zlib.crc32(block[:-4]):
        return "bad checksum", None
    return "ok", boot


def direct_io_dir():
    """Where temporary disks can be: the test's own folder, unless that is in memory, where O_DIRECT may be refused."""
    directory = os.environ.get("TMPDIR", "/var/tmp")
    kind = run("stat", "-f", "-c", "%T", directory)
    return "/var/tmp" if kind in ("tmpfs", "ramfs", "overlayfs") else directory


def verdict(faults, good):
    """What main() returns: each fault is told, and `good` where there is none."""
    for f in faults:
        print(f"FAULT: {f}")
    if not faults:
        print(good)
    return 1 if faults else 0


def terminate_on_signals():
    """SIGTERM and SIGINT become exceptions, so that `finally` takes labs and guests down."""
    def handler(number, _frame):
        raise SystemExit(128 + number)
    for s in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(s, handler)
