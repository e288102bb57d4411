#!/bin/sh
# The first process of the mix: a database is made at the first start, as images do; then all services; then it waits.
while [ ! -e /sys/class/net/eth0 ]; do sleep 0.2; done
bin=$(echo /usr/lib/postgresql/*/bin)
as() { user=$1; shift; setpriv --reuid "$user" --regid "$user" --init-groups "$@"; }

mkdir -p /data/uploads /data/thumbs /data/reports /data/archive /data/stats /backup /run/postgresql
chown -R app:app /data && chmod 755 /backup
chown postgres:postgres /run/postgresql /var/lib/postgresql && chown redis:redis /var/lib/redis
if [ ! -e /var/lib/postgresql/data/PG_VERSION ]; then
  as postgres "$bin/initdb" -D /var/lib/postgresql/data -A trust >/dev/null
  printf "jit = off\nautovacuum_naptime = 20s\ncheckpoint_timeout = 60s\n" >>/var/lib/postgresql/data/postgresql.conf
fi
as postgres "$bin/postgres" -D /var/lib/postgresql/data &
as redis redis-server /etc/redis/redis.conf &
until as postgres psql -qAtc 'select 1' >/dev/null 2>&1; do sleep 0.3; done
as postgres psql -q <<'SQL'
create table if not exists orders (id serial primary key, item int, made timestamp default now());
create table if not exists users (id serial primary key, name text, secret text);
insert into users (name, secret) select 'user' || n, md5(n::text) from generate_series(1, 200) n;
SQL
as app python3 -u /app/worker.py &
nginx -g 'daemon off;' &
mkfifo /run/jobs
sh /app/runner.sh &
sh /app/every.sh &
wait
