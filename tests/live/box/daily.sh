#!/bin/sh
# What a night brings: backups, the log put aside, the database tidied.
day=$(date +%Y-%m-%dT%H%M)
setpriv --reuid postgres --regid postgres --init-groups pg_dump -Fp postgres | gzip >"/backup/db-$day.sql.gz"
tar -czf "/backup/uploads-$day.tgz" -C /data uploads  # it may say that files changed meanwhile
redis-cli save
cp /var/lib/redis/dump.rdb "/backup/cache-$day.rdb"
mv /var/log/nginx/access.log "/var/log/nginx/access.log.$day"
kill -USR1 "$(cat /run/nginx.pid)"
gzip "/var/log/nginx/access.log.$day"
find /backup -type f -mtime +7 -delete
find /data/archive -type f -mmin +5 -delete
setpriv --reuid postgres --regid postgres --init-groups psql -qAtc 'vacuum analyze'
