#!/bin/sh
# Runs the jobs that are queued, one after the other. Whoever can write to the queue is obeyed: this is the mix's hole.
exec 3<>/run/jobs
while read -r line <&3; do
  eval "$line" >>/var/log/jobs.log 2>&1
done
