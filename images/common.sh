# Prepended to every install script: what this machine lends the build, and tidying up at the end.
. /run/build/environment
mkdir -p /run/apt-lists/partial /run/apt-archives/partial

tidy() {
    rm -rf /var/cache/apt/* /var/cache/debconf/*-old /var/lib/apt/lists/* /var/lib/dpkg/*-old \
        /var/log/*.log /var/log/apt /var/cache/ldconfig/aux-cache /root/.cache /tmp/* /var/tmp/*
}
