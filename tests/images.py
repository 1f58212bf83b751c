"""A Dockerfile, executed without Docker: its lines run in a bare Debian root made by debootstrap.

In: a Dockerfile of the project. Out: an `Image`, whose `run` does what `docker run` would: another root, a user, /data
from outside, 64 MiB of /dev/shm, and the image's environment alone. pip's settings and its folders of wheels are passed
in. Only what the project's Dockerfiles use is known; any other instruction is an error.

Every command has a mount and a process namespace of its own. Its mounts are therefore gone when it ends, and removing
the root can delete nothing outside.

Cost: 40 s of CPU for the root (minutes on a slow mirror). Needs root, Linux, and Debian's debootstrap.
"""

import fnmatch
import json
import os
import re
import shlex
import shutil
import string
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
CERTIFICATES, INSIDE = "/etc/ssl/certs/ca-certificates.crt", "/run/certificates.crt"

# $1: the root. $2: a folder for /data, or nothing. The rest: FROM AT for each folder or file from outside, then --, and
# the command.
ENTER = r"""
set -eu
root=$1 data=$2; shift 2
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o size=64m tmpfs "$root/dev/shm"
[ -z "$data" ] || mount --bind "$data" "$root/data"
while [ "$1" != -- ]; do
    if [ -d "$1" ]; then mkdir -p "$root$2"; else mkdir -p "$root${2%/*}"; touch "$root$2"; fi
    mount --bind "$1" "$root$2"
    shift 2
done
shift
exec chroot "$root" "$@"
"""


def missing() -> str | None:
    """Why no root can be made here, or None."""
    if os.geteuid() != 0:
        return "another root needs to be made by root"
    absent = [name for name in ("debootstrap", "unshare", "chroot") if not shutil.which(name)]
    return f"not installed: {' '.join(absent)} (apt install debootstrap)" if absent else None


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """(instruction, rest of the line) of a Dockerfile, without comments, lines joined."""
    text = re.sub(r"^\s*#.*\n", "", dockerfile.read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines if line.strip())]


def is_ignored(path: str, patterns: list[str]) -> bool:
    """Whether Docker leaves a path out: the last pattern that matches it, or a folder above it, decides."""
    parts = path.split("/")
    ignored = False
    for pattern in patterns:
        name = pattern.removeprefix("!")
        tried = parts if name.startswith("**/") else parts[:1]
        if any(fnmatch.fnmatchcase(part, name.removeprefix("**/")) for part in tried):
            ignored = not pattern.startswith("!")
    return ignored


def ignored_patterns() -> list[str]:
    """The lines of .dockerignore. Each is a name at the top, or one at any depth after **/; ! takes it back."""
    return (PROJECT / ".dockerignore").read_text().split()


def _copy_project(target: Path) -> None:
    patterns = ignored_patterns()
    for folder, folders, files in os.walk(PROJECT):
        here = Path(folder).relative_to(PROJECT)
        folders[:] = [name for name in folders if not is_ignored((here / name).as_posix(), patterns)]
        (target / here).mkdir(exist_ok=True)
        for name in files:
            if not is_ignored((here / name).as_posix(), patterns):
                shutil.copy2(PROJECT / here / name, target / here / name)


@dataclass
class Image:
    """A root, and what the lines so far have set."""

    root: Path
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
    arguments: dict[str, str] = field(default_factory=dict)
    """Known during the build only."""
    user: str = "root"
    folder: str = "/"
    command: list[str] = field(default_factory=list)

    def build(self, dockerfile: Path) -> None:
        """Execute the lines of a Dockerfile. The root already is what its FROM names."""
        for word, rest in instructions(dockerfile):
            match word:
                case "FROM":
                    assert rest == "debian:bookworm-slim"
                case "ENV":
                    pairs = (pair.partition("=") for pair in shlex.split(rest))
                    known = dict(self.environment)
                    self.environment |= {k: string.Template(v).safe_substitute(known) for k, _, v in pairs}
                case "ARG":
                    name, _, value = rest.partition("=")
                    self.arguments[name] = value
                case "USER":
                    self.user = rest
                case "WORKDIR":
                    (self.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
                    self.folder = rest
                case "COPY":
                    assert rest == f"--chown={self.user} . ."
                    _copy_project(self.root / self.folder.lstrip("/"))
                    self.run(["chown", "-R", f"{self.user}:", self.folder], user="root", check=True)
                case "RUN":
                    self.run(["sh", "-c", rest], build=True, check=True)
                case "CMD":
                    self.command = json.loads(rest)
                case _:
                    raise NotImplementedError(f"{word} of {dockerfile.name}")

    def run(
        self,
        command: list[str],
        *,
        user: str | None = None,
        data: Path | None = None,
        build: bool = False,
        check: bool = False,
        limit: float = 1200,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the image, as `docker run --user USER --volume DATA:/data` does. `user` may be a number."""
        user = user or self.user
        known = dict(line.split(":", 1) for line in (self.root / "etc/passwd").read_text().splitlines())
        variables = self.environment | {"HOME": known[user].split(":")[4] if user in known else "/"}
        shown = {"/etc/resolv.conf": "/etc/resolv.conf", "/etc/hosts": "/etc/hosts"}
        if build:
            # Not at their own path, which the package ca-certificates writes.
            shown[CERTIFICATES] = INSIDE
            shown |= {word: word for word in os.environ.get("PIP_FIND_LINKS", "").split() if Path(word).is_dir()}
            variables |= {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
            variables |= self.arguments | {"PIP_CERT": INSIDE, "SSL_CERT_FILE": INSIDE}
        return subprocess.run(
            [
                *("unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", ENTER, "enter"),
                *(str(self.root), str(data or ""), *(path for pair in shown.items() for path in pair), "--"),
                *("setpriv", f"--reuid={user}", f"--regid={user}"),
                "--init-groups" if user in known else "--clear-groups",
                *("env", "-i", f"--chdir={self.folder}", *(f"{name}={value}" for name, value in variables.items())),
                *command,
            ],
            capture_output=True,
            text=True,
            timeout=limit,
            check=check,
        )


def bare_debian(root: Path) -> None:
    """A root with Debian bookworm and nothing that is not essential."""
    command = ["debootstrap", "--variant=minbase", "bookworm", str(root), "http://deb.debian.org/debian"]
    subprocess.run(command, capture_output=True, text=True, check=True, timeout=3000)
