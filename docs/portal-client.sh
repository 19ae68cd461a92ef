#!/bin/sh
# Signs an event as Standard Webhooks asks for and posts it to Hummingfleet: a POSIX shell, curl and openssl.
#
#   portal-client.sh SECRET_FILE URL EVENT_FILE [EVENT_ID]
#
# SECRET_FILE holds the secret, whsec_..., and should be readable by its owner only. EVENT_FILE holds the body, whose
# bytes are signed and sent as they are. Sending an event again under the same EVENT_ID is safe: it is accepted once.
# The answer goes to standard output. Ends with 0 if the event was accepted (now or before), 1 if it was not, and with
# curl's code if nobody answered.
#
# The secret is in no argument and in no environment: `openssl dgst -mac HMAC -macopt` would show it to every user of the
# machine (ps). So HMAC is put together from two plain SHA-256, with the key's pads coming through pipes from the
# shell's own printf: HMAC(key, text) = H(key ^ 5c5c.. || H(key ^ 3636.. || text)).
set +x # tracing would print the secret
set -eu

fail() {
    printf '%s\n' "portal-client.sh: $1" >&2
    exit 1
}

[ $# -eq 3 ] || [ $# -eq 4 ] || fail "usage: portal-client.sh SECRET_FILE URL EVENT_FILE [EVENT_ID]"
secret_file=$1
url=$2
event_file=$3
event_id=${4:-evt_$(openssl rand -hex 12)}

[ -r "$secret_file" ] || fail "$secret_file cannot be read"
[ -r "$event_file" ] || fail "$event_file cannot be read"
secret=
IFS= read -r secret <"$secret_file" || [ -n "$secret" ] || fail "$secret_file is empty"
case $secret in
whsec_*) ;;
*) fail "$secret_file holds no secret that begins with whsec_" ;;
esac

# The key in hexadecimal digits, two per byte.
key=$(printf '%s' "${secret#whsec_}" | openssl base64 -d -A | od -An -v -tx1 | tr -d ' \n')
[ ${#key} -ge 48 ] && [ ${#key} -le 128 ] || fail "the secret in $secret_file is damaged"

# pad NUMBER: the key, filled up with zeros to the 64 bytes of a SHA-256 block, each byte xor NUMBER, for printf.
pad() {
    rest=$key
    count=0
    while [ $count -lt 64 ]; do
        byte=0
        if [ -n "$rest" ]; then
            byte=$((0x${rest%"${rest#??}"}))
            rest=${rest#??}
        fi
        printf '\\%03o' $((byte ^ $1))
        count=$((count + 1))
    done
}

timestamp=$(date +%s)
signature=$(
    {
        printf "$(pad 92)"
        {
            printf "$(pad 54)"
            printf '%s.%s.' "$event_id" "$timestamp"
            cat -- "$event_file"
        } | openssl dgst -sha256 -binary
    } | openssl dgst -sha256 -binary | openssl base64 -A
)

# What passes (no connection, 429, 5xx) is tried again under the same id; the signature is good for five minutes.
answer=$(
    curl --silent --show-error --max-time 30 --retry 4 --retry-connrefused --retry-max-time 120 \
        --header "Content-Type: application/json" \
        --header "webhook-id: $event_id" \
        --header "webhook-timestamp: $timestamp" \
        --header "webhook-signature: v1,$signature" \
        --data-binary "@$event_file" \
        --write-out '\n%{http_code}' \
        "$url"
)
status=${answer##*
}
printf '%s\n' "${answer%
*}"
printf '%s\n' "event $event_id: status $status" >&2
case $status in
200 | 202) ;;
*) exit 1 ;;
esac
