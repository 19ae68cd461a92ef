#!/bin/sh
# Puts one file of one Debian package into place, without adding its suite to the machine's sources.
#   fetch_debian_file.sh [--check] SUITE PACKAGE FILE-IN-PACKAGE DESTINATION
set -eu
[ "$1" = --check ] && exit 0
suite=$1 package=$2 file=$3 destination=$4

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/package"

# Packages come from wherever this machine's own come from. Origin is empty before the first update.
codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
source=$(apt-get indextargets --format '$(CREATED_BY)|$(COMPONENT)|$(RELEASE)|$(ORIGIN)|$(REPO_URI)|$(SIGNED_BY)' |
    awk -F'|' -v codename="$codename" '
        $1 == "Packages" && $2 == "main" && $3 == codename && ($4 == "Debian" || $4 == "") { print $5 "|" $6; exit }')
mirror=${source%%|*}
keyring=${source#*|}
if [ -z "$mirror" ]; then
    echo "apt has no source for Debian $codename main; check /etc/apt/sources.list.d" >&2
    exit 1
fi
case $keyring in
    /*) options="[signed-by=$keyring] " ;;
    *) options="" ;;
esac
echo "deb $options$mirror $suite main" > "$work/sources.list"
cat > "$work/apt.conf" <<CONF
Dir::Etc::sourcelist "$work/sources.list";
Dir::Etc::sourceparts "-";
Dir::State::lists "$work/lists";
APT::Sandbox::User "root";
Acquire::Languages "none";
CONF
export APT_CONFIG="$work/apt.conf"

apt-get --quiet update
cd "$work/package"
apt-get --quiet download "$package"
dpkg-deb --extract ./*.deb "$work/files"
install -D -o root -g root -m 0755 "$work/files/$file" "$destination.new"
mv "$destination.new" "$destination"
