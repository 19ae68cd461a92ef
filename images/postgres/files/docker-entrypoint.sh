#!/bin/bash
# Starts PostgreSQL; creates the database cluster on the first start. Understands the variables of the official image:
# PGDATA, POSTGRES_USER, POSTGRES_DB, POSTGRES_PASSWORD (or POSTGRES_PASSWORD_FILE), POSTGRES_INITDB_ARGS,
# POSTGRES_HOST_AUTH_METHOD, and scripts in /docker-entrypoint-initdb.d. Runs as any user, on a read-only root.
set -Eeuo pipefail

fail() {
    echo "postgres: $*" >&2
    exit 1
}

# Give a variable's value, or the content of the file that <variable>_FILE names.
from_environment() {
    local name=$1 default=${2:-} file_name="${1}_FILE"
    if [[ -n ${!name:-} && -n ${!file_name:-} ]]; then
        fail "both $name and $file_name are set; set one"
    fi
    if [[ -n ${!file_name:-} ]]; then
        [[ -r ${!file_name} ]] || fail "$file_name names ${!file_name}, which user $(id -u) cannot read"
        printf '%s' "$(<"${!file_name}")"
    else
        printf '%s' "${!name:-$default}"
    fi
}

# initdb insists on a user name for its uid; give it one where /etc/passwd has none.
borrow_user_name() {
    getent passwd "$(id -u)" > /dev/null && return 0
    local folder library
    folder=$(mktemp -d 2> /dev/null || mktemp -d -p /dev/shm)
    echo "postgres:x:$(id -u):$(id -g):PostgreSQL:$PGDATA:/bin/false" > "$folder/passwd"
    echo "postgres:x:$(id -g):" > "$folder/group"
    for library in /usr/lib/*/libnss_wrapper.so; do
        export LD_PRELOAD=$library NSS_WRAPPER_PASSWD=$folder/passwd NSS_WRAPPER_GROUP=$folder/group
    done
    borrowed=$folder
}

return_user_name() {
    if [[ -n ${borrowed:-} ]]; then
        rm -rf "$borrowed"
        unset LD_PRELOAD NSS_WRAPPER_PASSWD NSS_WRAPPER_GROUP
    fi
}

run_sql() {
    psql -v ON_ERROR_STOP=1 --no-psqlrc --no-password --quiet --host "$socket" --username "$user" "$@"
}

create_cluster() {
    local password method
    password=$(from_environment POSTGRES_PASSWORD)
    method=${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}
    if [[ -z $password && $method != trust ]]; then
        fail "the superuser needs a password: set POSTGRES_PASSWORD_FILE (or POSTGRES_PASSWORD)"
    fi
    borrow_user_name
    # A here-string would end in a newline that initdb strips; the password is never an argument or a file on disk.
    # shellcheck disable=SC2086  POSTGRES_INITDB_ARGS is a list of words
    initdb --username="$user" --pwfile=<(printf '%s\n' "$password") --auth-local=trust --auth-host=scram-sha-256 \
        ${POSTGRES_INITDB_ARGS:-}
    touch "$PGDATA/initialising"
    printf '\nhost all all all %s\n' "$method" >> "$PGDATA/pg_hba.conf"
    return_user_name
}

fill_cluster() {
    local database file
    database=$(from_environment POSTGRES_DB "$user")
    # Only the socket listens until the cluster is complete, so that nobody takes it for ready.
    pg_ctl --wait --silent -D "$PGDATA" -o "-c listen_addresses='' -c unix_socket_directories='$socket'" start
    if [[ -z $(run_sql --dbname postgres -tA -v name="$database" <<< \
        "SELECT 1 FROM pg_database WHERE datname = :'name'") ]]; then
        run_sql --dbname postgres -v name="$database" <<< 'CREATE DATABASE :"name"'
    fi
    for file in /docker-entrypoint-initdb.d/*; do
        case $file in
            *.sh) if [[ -x $file ]]; then "$file"; else . "$file"; fi ;;
            *.sql) run_sql --dbname "$database" --file "$file" ;;
            *.sql.gz) gunzip --stdout "$file" | run_sql --dbname "$database" ;;
        esac
    done
    pg_ctl --wait --silent -D "$PGDATA" -m fast stop
    rm "$PGDATA/initialising"
}

case ${1:-postgres} in
    postgres) ;;
    -*) set -- postgres "$@" ;;
    *) exec "$@" ;;
esac

if [[ $(id -u) == 0 ]]; then
    mkdir -p "$PGDATA" /var/run/postgresql
    chmod 00700 "$PGDATA"
    chown -R postgres:postgres "$PGDATA"
    exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
fi

user=$(from_environment POSTGRES_USER postgres)
socket=/var/run/postgresql
if [[ ! -s $PGDATA/PG_VERSION ]]; then
    mkdir -p "$PGDATA" 2> /dev/null || true
    chmod 00700 "$PGDATA" 2> /dev/null || true
    create_cluster
fi
# The marker outlives a first start that was cut short; the next one finishes the work.
if [[ -e $PGDATA/initialising ]]; then
    rm -f "$PGDATA/postmaster.pid"
    fill_cluster
fi
unset POSTGRES_PASSWORD
exec "$@"
