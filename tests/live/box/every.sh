#!/bin/sh
# The timetable: a tidy-up every few seconds.
while :; do
  sleep 3
  echo "sh /app/tidy.sh" >/run/jobs
done
