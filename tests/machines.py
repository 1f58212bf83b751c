"""Emulated machines for the cluster tests: Linux namespaces, each with its own address, sshd, home, /tmp, and /dev/shm.

In: names and a scratch folder. Out: `Machine`s with a network between them. They share the folder /srv/shared, as over
NFS, and the host's programs, so nothing is installed twice.

How: a "switch" process owns a network namespace with a bridge. Every machine is a process tree under
`unshare --net --pid --mount --uts --ipc`. Its first process mounts its own folders over /tmp, /srv, /run, and /dev/shm,
and becomes sshd. A veth pair connects a machine to the switch. Nothing is added to the host's network or mount tables,
so two runs cannot conflict. When the test's process dies in any way, the kernel kills the switch and the machines
(PR_SET_PDEATHSIG, --kill-child), and everything they own disappears with them.

On every machine the project is in ~/kogpt: on the laptop a clone made at the start of the test, on a node what rsync
copied there. ~/kogpt/.venv is the test's virtual environment under a writable overlay that is marked as installed, so
`make install` does not install gigabytes again on each machine.

Cost: about 0.3 s per machine. Needs root, Linux, and Debian's iproute2, openssh-server, and util-linux.
"""

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
VENV = Path(sys.prefix)
HOME = "/srv/home"
SHARED = "/srv/shared"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
COVERED = ("/tmp", "/srv", "/run")
NAMESPACES = ("--net", "--pid", "--mount", "--uts", "--ipc")
DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL")

# First process of a machine. $ROOT: its folder; the rest of the environment is described in `Machine.start`.
BOOT = r"""
set -eu
hostname "$NAME"
mount -t tmpfs -o mode=755 tmpfs "$ROOT/run"
mount -t tmpfs tmpfs /dev/shm
mkdir -p "$ROOT/run/sshd" "$ROOT/run/venv/upper" "$ROOT/run/venv/work"
if [ "$IS_NODE" = yes ]; then mount --bind "$BASE/shared" "$ROOT/srv/shared"; fi
touch "$ROOT/run/venv/upper/installed"
mount -t overlay overlay -o "lowerdir=$VENV,upperdir=$ROOT/run/venv/upper,workdir=$ROOT/run/venv/work" \
    "$ROOT/srv/home/kogpt/.venv"
show() {  # show FOLDER AT: mount FOLDER at the path AT, also if AT is about to be covered
    at=$2
    for covered in /tmp /srv /run; do
        case "$2" in "$covered"/*) at="$ROOT$2"; mkdir -p "$at";; esac
    done
    [ "$1" = "$at" ] || mount --rbind "$1" "$at"
}
show "$PYTHON" "$PYTHON"
show "$VENV" "$VENV"
show "$ROOT/srv/home/kogpt" "$PROJECT"
for file in passwd hosts hostname; do mount --bind "$ROOT/etc/$file" "/etc/$file"; done
mount --rbind "$ROOT/srv" /srv
mount --rbind "$ROOT/run" /run
mount --rbind "$ROOT/tmp" /tmp
ip link set lo up
read -r _  # the network is connected
# bash stays the first process, because it reaps orphans as an init does (sshd is slow, and `ray stop` waits for it)
/usr/sbin/sshd -D -e -f /dev/null -h "$HOST_KEY" -o PidFile=none -o UsePAM=no -o StrictModes=no \
    -o PermitRootLogin=yes -o PasswordAuthentication=no -o AuthorizedKeysFile=.ssh/authorized_keys &
wait $!
"""


def missing(*more: str) -> str | None:
    """Why machines cannot be created here, for example because programs (also `more`) are missing; or None."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "namespaces need root on Linux"
    programs = ("ip", "ssh", "ssh-keygen", "sshd", "rsync", "make", "unshare", "nsenter", "setpriv", "pgrep", *more)
    absent = [name for name in programs if not shutil.which(name, path=PATH)]
    if absent:
        return f"not installed: {' '.join(absent)} (apt install iproute2 openssh-server rsync make procps pdsh)"
    probe = subprocess.run(["unshare", *NAMESPACES, "--fork", "true"], capture_output=True, text=True)
    return None if probe.returncode == 0 else f"namespaces are not allowed here: {probe.stderr.strip()}"


def wait_for(what: str, condition: Callable[[], object], limit: float, interval: float = 0.2) -> None:
    """Poll `condition` until it is true. Raises an AssertionError that names `what` after `limit` seconds."""
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {limit:.0f} s"
        time.sleep(interval)


@dataclass
class Machine:
    """One machine. `home`, `tmp`, and `shared` are the host's paths of its ~, /tmp, and /srv/shared."""

    name: str
    address: str
    is_node: bool
    base: Path
    switch: int
    number: int
    process: subprocess.Popen[str] | None = None
    first: int = 0

    @property
    def root(self) -> Path:
        return self.base / self.name

    @property
    def home(self) -> Path:
        return self.root / "srv/home"

    @property
    def tmp(self) -> Path:
        return self.root / "tmp"

    @property
    def shared(self) -> Path:
        return self.base / "shared"

    @property
    def cable(self) -> str:
        return f"port{self.number}"

    def start(self) -> None:
        """Switch it on. Its disk (home, /tmp) is as it was when it was switched off."""
        shutil.rmtree(self.tmp, ignore_errors=True)  # as Debian does at boot
        for folder in ("tmp", "run", "etc", "srv/shared", "srv/home/kogpt/.venv"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        (self.root / "etc/hostname").write_text(f"{self.name}\n")
        shutil.copy(self.base / "hosts", self.root / "etc/hosts")
        users = Path("/etc/passwd").read_text().splitlines()
        (self.root / "etc/passwd").write_text(
            "\n".join(f"root:x:0:0:root:{HOME}:/bin/bash" if u.startswith("root:") else u for u in users) + "\n"
        )
        variables = {
            "PATH": PATH,
            "ROOT": str(self.root),
            "BASE": str(self.base),
            "NAME": self.name,
            "IS_NODE": "yes" if self.is_node else "no",
            "PROJECT": str(PROJECT),
            "VENV": str(VENV),
            "PYTHON": sys.base_prefix,
            "HOST_KEY": f"{HOME}/host_key",
        }
        with (self.base / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*DIES_WITH_US, "unshare", *NAMESPACES, "--fork", "--kill-child", "--mount-proc", "bash", "-c", BOOT],
                env=variables,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                text=True,
            )
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        wait_for(f"{self.name} forks", lambda: self.is_on() and children.read_text().split(), 10, 0.02)
        self.first = int(children.read_text().split()[0])
        wait_for(f"{self.name} has its own network", self._has_own_network, 10, 0.02)
        self._in_switch(f"ip link add {self.cable} type veth peer name eth0 netns {self.first}")
        self._in_switch(f"ip link set {self.cable} master bridge up")
        # the default route leads nowhere, but programs use it to find their own address
        self._in_network(
            f"ip addr add {self.address}/24 dev eth0 && ip link set eth0 up && ip route add default via 10.99.0.1"
        )
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.close()
        wait_for(f"sshd of {self.name}", self._answers, 20, 0.1)

    def is_on(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def power_off(self) -> None:
        """Cut the power: all processes end at once, and the contents of memory are lost."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def unplug(self) -> None:
        """Disconnect the network: packets are lost without an error."""
        self._in_switch(f"ip link set {self.cable} down")

    def plug(self) -> None:
        self._in_switch(f"ip link set {self.cable} up")

    def argv(self, *words: str) -> list[str]:
        """The host's command line that runs a program on the machine as root."""
        inside = ["env", "-i", f"HOME={HOME}", f"PATH={PATH}", "USER=root", "LANG=C.UTF-8", "TERM=dumb"]
        return [*DIES_WITH_US, "nsenter", "--target", str(self.first), *NAMESPACES, *inside, *words]

    def command(self, line: str) -> list[str]:
        """The host's command line that runs `line` on the machine in a login shell, in root's home."""
        return self.argv("bash", "--login", "-c", f"cd; . ~/.bashrc; {line}")

    def run(self, line: str, *, limit: float = 120) -> subprocess.CompletedProcess[str]:
        """Run `line` on the machine, with stderr in stdout. The caller checks the return code."""
        return subprocess.run(
            self.command(line),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=limit,
        )

    def spawn(self, line: str, log: Path) -> subprocess.Popen[bytes]:
        """Start `line` on the machine with its output in the file `log`. The caller waits for it."""
        with log.open("wb") as output:
            return subprocess.Popen(
                self.command(line), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )

    def pids(self, pattern: str) -> list[int]:
        """The machine's PIDs of the processes whose command line matches."""
        found = subprocess.run(self.argv("pgrep", "-f", "--", pattern), capture_output=True, text=True)
        return [int(pid) for pid in found.stdout.split()]

    def signal(self, name: str, pattern: str) -> None:
        """Send the signal to the processes whose command line matches. There must be at least one."""
        subprocess.run(self.argv("pkill", f"-{name}", "-f", "--", pattern), check=True)

    def _has_own_network(self) -> bool:
        theirs, ours = Path(f"/proc/{self.first}/ns/net"), Path("/proc/self/ns/net")
        return theirs.readlink() != ours.readlink()

    def _answers(self) -> bool:
        assert self.is_on(), (self.base / f"{self.name}.log").read_text()[-2000:]
        probe = f"nsenter --target {self.first} --net bash -c 'exec 3<>/dev/tcp/{self.address}/22; read -t 2 <&3'"
        return subprocess.run(shlex.split(probe), capture_output=True).returncode == 0

    def _in_network(self, line: str) -> None:
        subprocess.run(["nsenter", "--target", str(self.first), "--net", "sh", "-c", line], check=True)

    def _in_switch(self, line: str) -> None:
        subprocess.run(["nsenter", "--target", str(self.switch), "--net", "sh", "-c", line], check=True)


@contextlib.contextmanager
def machines(base: Path, laptop: str, *nodes: str) -> Iterator[list[Machine]]:
    """A laptop with the project and the ssh key, and bare nodes that accept it. All are switched off at the end."""
    (base / "shared").mkdir(parents=True)
    switch = subprocess.Popen([*DIES_WITH_US, "unshare", "--net", "sleep", "infinity"])
    made: list[Machine] = []
    try:
        ours = Path("/proc/self/ns/net").readlink()
        wait_for("the switch", lambda: Path(f"/proc/{switch.pid}/ns/net").readlink() != ours, 10, 0.02)
        made += [
            Machine(name, f"10.99.0.{number}", name != laptop, base, switch.pid, number)
            for number, name in enumerate((laptop, *nodes), start=2)
        ]
        made[0]._in_switch("ip link add bridge type bridge && ip link set bridge up")
        (base / "hosts").write_text("127.0.0.1 localhost\n" + "".join(f"{m.address} {m.name}\n" for m in made))
        key = base / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        for machine in made:
            (machine.home / ".ssh").mkdir(parents=True)
            (machine.home / ".bashrc").write_text("")
            shutil.copy(f"{key}.pub", machine.home / ".ssh/authorized_keys")
            shutil.copy(key, machine.home / "host_key")
        shutil.copy(key, made[0].home / ".ssh/id_ed25519")
        (made[0].home / ".bashrc").write_text("export PATH=~/kogpt/.venv/bin:$PATH\n")
        clone = ["rsync", "-a", "--filter=:- .gitignore", "--exclude=.git", f"{PROJECT}/", str(made[0].home / "kogpt")]
        subprocess.run(clone, check=True)
        for machine in made:
            machine.start()
        yield made
    finally:
        for machine in made:
            machine.power_off()
        switch.kill()
        switch.wait()
