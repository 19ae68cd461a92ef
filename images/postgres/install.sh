# PostgreSQL 15 with the contract of the official image. Runs as root in a container.
apt-get update -q
apt-get install -q -y postgresql-common
sed -ri 's/#?(create_main_cluster) .*/\1 = false/' /etc/postgresql-common/createcluster.conf
apt-get install -q -y postgresql-15 libnss-wrapper

# The query compiler weighs 130 MB and pays for queries of seconds only; the server runs without it.
rm -rf /usr/lib/postgresql/15/lib/llvmjit.so /usr/lib/postgresql/15/lib/bitcode
rm -f /usr/lib/*/libLLVM-*.so*
# A key pair made while building would be the same in every copy of the image.
rm -f /etc/ssl/private/ssl-cert-snakeoil.key /etc/ssl/certs/ssl-cert-snakeoil.pem

sed -ri "s/^#?listen_addresses .*/listen_addresses = '*'/" /usr/share/postgresql/15/postgresql.conf.sample
install -d -o postgres -g postgres -m 3777 /var/run/postgresql
install -d -o postgres -g postgres -m 1777 /var/lib/postgresql/data
install -d /docker-entrypoint-initdb.d
install -m 0755 /run/build/files/docker-entrypoint.sh /usr/local/bin/docker-entrypoint.sh
tidy
