# Redis 7 with the contract of the official image. Runs as root in a container.
apt-get update -q
apt-get install -q -y redis-server
install -d -o redis -g redis -m 1777 /data
install -m 0755 /run/build/files/docker-entrypoint.sh /usr/local/bin/docker-entrypoint.sh
rm -rf /etc/redis/redis.conf /var/lib/redis
# The package keeps others out of it, but a configuration mounted there belongs to whoever runs the server.
chmod 0755 /etc/redis
tidy
