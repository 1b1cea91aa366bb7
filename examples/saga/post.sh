#!/usr/bin/env bash
# Posts the messages of JSON Lines files to a host, one after the other.
#
#   post.sh URL FILE...
#
# A message that gets no answer, because the host is not there, is posted again until it gets one:
# the host drops what it knows.
set -euo pipefail
url=$1
shift

cat "$@" | while IFS= read -r line; do
    topic=$(sed -E 's/.*"topic": ?"([^"]*)".*/\1/' <<<"$line")
    body=$(sed -E 's/.*"body": ?(\{.*\})\}$/\1/' <<<"$line")
    until status=$(curl -s -o /dev/null -w '%{http_code}' "$url/topics/$topic" -d "$body"); do
        sleep 0.2
    done
    echo "$status $topic $body"
done
