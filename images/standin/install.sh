# One static binary under the names that a tenant's stack starts; /out becomes the whole image. Runs in a container.
apt-get update -q
apt-get install -q -y gcc libc6-dev
mkdir -p /out/bin /out/usr /out/tmp /out/etc /out/run/postgresql /out/data /out/var/lib/postgresql/data \
    /out/home/hummingbot /out/opt/hummingfleet
ln -s bin /out/usr/bin
ln -s /run /out/var/run
chmod 1777 /out/tmp
gcc -std=c11 -O2 -Wall -Wextra -Werror -static -s -o /out/bin/standin /run/build/files/standin.c
for name in python postgres redis-server pg_isready redis-cli docker-entrypoint.sh sh; do
    ln /out/bin/standin "/out/bin/$name"
done
