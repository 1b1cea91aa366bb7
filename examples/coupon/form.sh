#!/usr/bin/env bash
# Claims a coupon as a web page does: a one-time token, then the form with it, posted twice.
#
#   form.sh URL COUPON USER
set -euo pipefail
url=$1 coupon=$2 user=$3

# The page's server does this when it makes the page, and writes the token into a hidden field.
token=$(curl -sSf --retry 10 --retry-connrefused -X POST "$url/tokens/coupon-claims" | sed -E 's/.*"token": ?"([^"]*)".*/\1/')

# The browser does this, each time that the button is pressed.
submit() {
    curl -sS -D - "$url/topics/coupon-claims" --data-urlencode "coupon=$1" \
        --data-urlencode "user=$user" -d "_token=$token" |
        grep -iE '^(HTTP|idempotency-replayed|\{)' | tr -d '\r'
    echo
}
submit "$coupon"
submit "$coupon"
submit "another-$coupon"
